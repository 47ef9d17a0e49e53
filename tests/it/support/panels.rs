//! The panels of a dashboard as one page: a Prometheus answers their expressions, and each answer is drawn in the panel's
//! place, with its title, unit, legend and thresholds. This is not Grafana and does not want to be: it is for looking at
//! what a dashboard says about a load, and it draws what our dashboards use and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::prometheus::{Course, Prometheus, Span, all_chosen};

/// Pixels of one cell of the grid, and between panels.
const CELL: (f64, f64) = (55.0, 27.0);
const GAP: f64 = 6.0;
const HEADER: f64 = 24.0;
/// Of a plot, for the numbers on its left and the times below.
const LEFT: f64 = 66.0;
const BELOW: f64 = 18.0;
const COLOURS: &str = "#56a64b #e0a800 #33a2e5 #ff780a #e02f44 #1f60c4 #a352cc #705da0 #508642 #b28600 #890f02";
const STYLE: &str = "body{margin:0;background:#f4f5f5;font:12px/15px sans-serif;color:#24292e}
.p{position:absolute;box-sizing:border-box;background:#fff;border:1px solid #e0e2e4;border-radius:2px;overflow:hidden}
.p>h2{font:600 13px/24px sans-serif;margin:0 8px;height:24px;overflow:hidden;white-space:nowrap}
.text{border:0;background:none;padding:8px;font-size:14px}
.stat b{position:absolute;left:0;right:0;top:34px;text-align:center;font:600 30px/36px sans-serif}
table{border-collapse:collapse;width:100%}td,th{padding:0 8px;text-align:right;font-weight:400;white-space:nowrap}
td:first-child,th:first-child{text-align:left}th{color:#1f60c4}.timeseries table{font-size:11px;line-height:15px}
.timeseries table{position:absolute;right:0;top:24px}.timeseries td:first-child{max-width:0;width:99%;overflow:hidden;text-overflow:ellipsis}.table td,.table th{line-height:26px;border-bottom:1px solid #eceeef}
i{display:inline-block;width:14px;height:0;border-top:3px solid;vertical-align:middle;margin-right:6px}
p{position:absolute;left:8px;top:28px;margin:0;color:#57606a}path{fill:none;stroke-linecap:round}
svg{position:absolute;left:0}svg text{font:10.5px sans-serif;fill:#57606a}";

/// One series of a panel, of the target with this name.
struct Line<'a> {
    target: &'a str,
    legend: String,
    labels: BTreeMap<String, String>,
    points: Vec<(f64, f64)>,
}

/// When an annotation holds: its colour, from, to.
type Mark<'a> = (&'a str, f64, f64);

/// A panel with what it was answered.
struct Drawing<'a> {
    panel: &'a Value,
    lines: Vec<Line<'a>>,
    span: Span,
    width: f64,
    height: f64,
}

/// Everything is chosen, and rates are taken over `window`. Says also how high the page is.
pub async fn page(file: &str, dashboard: &Value, prometheus: &Prometheus, span: Span, window: &str) -> (String, f64) {
    let ask = async |expression: &Value, span: Span| prometheus.over(&all_chosen(text(expression), window), span).await;
    let mut marks = Vec::new();
    for annotation in list(&dashboard["annotations"]["list"]) {
        let colour = text(&annotation["iconColor"]);
        for course in ask(&annotation["expr"], span).await {
            let stretches = course.points.chunk_by(|before, after| after.0 - before.0 < span.step * 1.5);
            marks.extend(stretches.map(|all| (colour, all[0].0, all[all.len() - 1].0)));
        }
    }
    let (mut body, mut bottom) = (String::new(), 0.0_f64);
    for panel in list(&dashboard["panels"]) {
        // A heat map has columns that one can see.
        let step = if panel["type"] == "heatmap" { span.step * 3.0 } else { span.step };
        let span = Span { step, ..span };
        let mut lines = Vec::new();
        for target in list(&panel["targets"]) {
            let from = if target["instant"] == true { span.to } else { span.from };
            let courses = ask(&target["expr"], Span { from, ..span }).await;
            lines.extend(courses.into_iter().filter(|course| !course.points.is_empty()).map(|one| line(target, one)));
        }
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_f64().expect("a place"));
        let (width, height) = (w * CELL.0 - GAP, h * CELL.1 - GAP);
        let (left, top, kind) = (x * CELL.0 + GAP / 2.0, y * CELL.1 + GAP / 2.0, text(&panel["type"]));
        let html = Drawing { panel, lines, span, width, height }.html(&marks);
        let place = format!("left:{left}px;top:{top}px;width:{width}px;height:{height}px");
        body += &format!("<div class='p {kind}' style='{place}'>{html}</div>");
        bottom = bottom.max(top + height + GAP);
    }
    let drawn = "their expressions answered by Prometheus, drawn by our own maker of pictures, not by Grafana";
    let about = format!("Panels of dashboards/{file}, {drawn}");
    (format!("<!doctype html><meta charset=utf-8><style>{STYLE}</style>{body}<p>{about}"), bottom)
}

fn line(target: &Value, course: Course) -> Line<'_> {
    let named = |legend: String, (name, value): (&String, &String)| legend.replace(&format!("{{{{{name}}}}}"), value);
    let legend = course.labels.iter().fold(text(&target["legendFormat"]).to_owned(), named);
    Line { target: text(&target["refId"]), legend, labels: course.labels, points: course.points }
}

impl Line<'_> {
    fn largest(&self) -> f64 {
        self.points.iter().map(|point| point.1).fold(f64::MIN, f64::max)
    }

    fn last(&self) -> f64 {
        self.points.last().expect("lines have points").1
    }
}

impl Drawing<'_> {
    fn html(&self, marks: &[Mark<'_>]) -> String {
        let drawn = match text(&self.panel["type"]) {
            "text" => return escaped(text(&self.panel["options"]["content"])),
            "stat" => self.stat(),
            "timeseries" => self.lines(marks),
            "heatmap" => self.heat(),
            "table" => self.table(),
            other => format!("<b>a {other}, not drawn</b>"),
        };
        format!("<h2>{}</h2>{drawn}", escaped(text(&self.panel["title"])))
    }

    fn unit(&self) -> &str {
        text(&self.panel["fieldConfig"]["defaults"]["unit"])
    }

    /// What a target (`byFrameRefID`) or a column (`byName`) has of its own.
    fn own(&self, matcher: &str, name: &str, property: &str) -> Option<&Value> {
        let overrides = list(&self.panel["fieldConfig"]["overrides"]).iter();
        let fitting = overrides.filter(|one| one["matcher"]["id"] == matcher && one["matcher"]["options"] == name);
        fitting.flat_map(|one| list(&one["properties"])).find(|one| one["id"] == property).map(|one| &one["value"])
    }

    fn svg(&self, place: &str, height: f64, drawn: &str) -> String {
        format!("<svg style='{place}' width='{}' height='{height}'>{drawn}</svg>", self.width)
    }

    fn stat(&self) -> String {
        let Some(line) = self.lines.first() else { return "<b>No data</b>".to_owned() };
        let colour = colour_at(&self.panel["fieldConfig"]["defaults"]["thresholds"], line.last());
        let (height, most) = (self.height * 0.35, above(line.largest()));
        let x = |when| (when - self.span.from) / (self.span.to - self.span.from) * self.width;
        let path = path(line.points.iter().map(|(when, value)| (x(*when), height - value / most * height)));
        let (first, last) = (x(line.points[0].0), x(line.points[line.points.len() - 1].0));
        let area = format!("<path d='{path}L{last},{height}H{first}Z' style='fill:{colour};fill-opacity:.15'/>");
        let curve = self.svg("bottom:0", height, &format!("{area}<path d='{path}' stroke='{colour}'/>"));
        format!("{curve}<b style='color:{colour}'>{}</b>", shown(line.last(), self.unit()))
    }

    fn lines(&self, marks: &[Mark<'_>]) -> String {
        let is_stacked = self.panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal";
        // By instant, since not every line has each of them.
        let mut below: BTreeMap<u64, f64> = BTreeMap::new();
        let mut lifted = |&(when, value): &(f64, f64)| {
            let floor = below.entry(when.to_bits()).or_default();
            let lowest = if is_stacked { std::mem::replace(floor, *floor + value) } else { 0.0 };
            (when, lowest, lowest + value)
        };
        let lines = self.lines.iter();
        let courses: Vec<Vec<_>> = lines.map(|line| line.points.iter().map(&mut lifted).collect()).collect();
        let (legend, height) = (self.width * 0.4, self.height - HEADER);
        let most = above(courses.iter().flatten().map(|point| point.2).fold(0.0, f64::max));
        let plot = Plot { span: self.span, width: self.width - legend, height, most };
        let mut drawn = plot.values(self.unit()) + &plot.times();
        for (colour, from, to) in marks {
            let (from, to, foot) = (plot.x(*from), plot.x(*to) + 2.0, height - BELOW + 1.5);
            drawn += &format!("<path d='M{from:.1},4V{foot}' stroke='{colour}' stroke-dasharray='3 3'/>");
            drawn += &format!("<path d='M{from:.1},{foot}H{to:.1}' stroke='{colour}' stroke-width='3'/>");
        }
        let mut rows = Vec::new();
        for ((line, course), colour) in self.lines.iter().zip(&courses).zip(COLOURS.split(' ').cycle()) {
            let own = |property| self.own("byFrameRefID", line.target, property);
            let dashes = if own("custom.lineStyle").is_some() { "7 4" } else { "" };
            let is_of_points = own("custom.drawStyle").is_some_and(|style| style == "points");
            for all in course.chunk_by(|before, after| after.0 - before.0 < self.span.step * 1.5) {
                let at = |when, value| (plot.x(when), plot.y(value));
                let upper = all.iter().map(|point| at(point.0, point.2));
                let path_of_points = || upper.clone().map(|(x, y)| format!("M{x:.1},{y:.1}h0")).collect();
                if is_stacked {
                    let area = path(upper.clone().chain(all.iter().rev().map(|point| at(point.0, point.1))));
                    drawn += &format!("<path d='{area}Z' style='fill:{colour};fill-opacity:.25'/>");
                }
                let (d, width) = if is_of_points { (path_of_points(), 2.8) } else { (path(upper.clone()), 1.3) };
                drawn +=
                    &format!("<path d='{d}' stroke='{colour}' stroke-width='{width}' stroke-dasharray='{dashes}'/>");
            }
            let mean = line.points.iter().map(|point| point.1).sum::<f64>() / line.points.len() as f64;
            let [mean, largest] = [mean, line.largest()].map(|value| shown(value, self.unit()));
            let name = format!("<i style='border-color:{colour}'></i>{}", escaped(&line.legend));
            rows.push((line.largest(), format!("<tr><td>{name}<td>{mean}<td>{largest}")));
        }
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        let rows: String = rows.into_iter().map(|(_, row)| row).collect();
        if self.lines.is_empty() {
            drawn += "<text x='30%' y='50%'>No data</text>";
        }
        let table = format!("<table style='width:{legend}px'><tr><th>Name<th>Mean<th>Max{rows}</table>");
        self.svg(&format!("top:{HEADER}px"), height, &drawn) + &table
    }

    /// One row for each bound, low ones below; what is in it is the difference to the next lower bound.
    fn heat(&self) -> String {
        let bound = |line: &Line<'_>| line.labels["le"].parse().expect("a number");
        let mut rows: Vec<(f64, &Line<'_>)> = self.lines.iter().map(|line| (bound(line), line)).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut below, mut cells) = (BTreeMap::<u64, f64>::new(), Vec::new());
        for ((_, line), row) in rows.iter().zip(0_u32..) {
            for (when, upto) in &line.points {
                let before = below.insert(when.to_bits(), *upto).unwrap_or(0.0);
                cells.push((f64::from(row), *when, (upto - before).max(0.0)));
            }
        }
        let height = self.height - HEADER;
        let plot = Plot { span: self.span, width: self.width, height, most: above(rows.len() as f64) };
        let most = above(cells.iter().map(|cell| cell.2).fold(0.0, f64::max));
        let wide = plot.x(self.span.from + self.span.step) - plot.x(self.span.from) - 1.0;
        let high = plot.y(0.0) - plot.y(1.0) - 1.0;
        let cell = |(row, when, count): (f64, f64, f64)| {
            let (x, y, strength) = (plot.x(when) - wide, plot.y(row + 1.0), 20.0 + 75.0 * (count / most).sqrt());
            let colour = format!("color-mix(in srgb,#b33600 {strength:.0}%,#fff3e6)");
            format!("<rect x='{x:.1}' y='{y:.1}' width='{wide:.1}' height='{high:.1}' fill='{colour}'/>")
        };
        cells.retain(|cell| cell.1 > self.span.from && cell.2 > 1e-9);
        let drawn: String = cells.into_iter().map(cell).collect();
        let label = |((le, _), row): (&(f64, &Line<'_>), u32)| plot.label(row.into(), &shown(*le, self.unit()));
        let labels: String = rows.iter().zip(1..).step_by(3).map(label).collect();
        self.svg(&format!("top:{HEADER}px"), height, &(drawn + &labels + &plot.times()))
    }

    /// The targets joined by the label that the panel's transformation names, each a column under its legend.
    fn table(&self) -> String {
        let by = text(&self.panel["transformations"][0]["options"]["byField"]);
        let targets = list(&self.panel["targets"]).iter().map(|one| (text(&one["refId"]), text(&one["legendFormat"])));
        let targets: Vec<(&str, &str)> = targets.collect();
        let keys = BTreeSet::from_iter(self.lines.iter().filter_map(|line| line.labels.get(by)));
        let mut keys: Vec<&String> = keys.into_iter().collect();
        let value = |key: &String, target: &str| {
            let mut lines = self.lines.iter();
            lines.find(|line| line.target == target && line.labels.get(by) == Some(key)).map(Line::last)
        };
        let sort_by = &self.panel["options"]["sortBy"][0]["displayName"];
        let (worst, _) = targets.iter().find(|(_, name)| sort_by == name).expect("a column");
        keys.sort_by(|a, b| value(b, worst).partial_cmp(&value(a, worst)).expect("no NaN"));
        let mut html = format!("<table><tr><th>{by}");
        html.extend(targets.iter().map(|(_, name)| format!("<th>{name}")));
        for key in keys {
            html += &format!("<tr><td>{}", escaped(key));
            for (target, name) in &targets {
                let value = value(key, target);
                let unit = self.own("byName", name, "unit").map_or(self.unit(), text);
                let limits = self.own("byName", name, "thresholds");
                let colour = value.zip(limits).map_or("inherit", |(value, limits)| colour_at(limits, value));
                let words = value.map_or(String::new(), |value| shown(value, unit));
                html += &format!("<td style='color:{colour}'>{words}");
            }
        }
        html + "</table>"
    }
}

/// From time and value to pixels.
struct Plot {
    span: Span,
    width: f64,
    height: f64,
    most: f64,
}

impl Plot {
    fn x(&self, when: f64) -> f64 {
        LEFT + (when - self.span.from) / (self.span.to - self.span.from) * (self.width - LEFT - 10.0)
    }

    fn y(&self, value: f64) -> f64 {
        self.height - BELOW - value / self.most * (self.height - BELOW - 6.0)
    }

    fn label(&self, value: f64, words: &str) -> String {
        format!("<text x='{}' y='{:.1}' text-anchor='end'>{words}</text>", LEFT - 6.0, self.y(value) + 3.5)
    }

    fn values(&self, unit: &str) -> String {
        let base = if unit == "bytes" { 2.0_f64 } else { 10.0 };
        let power = base.powf((self.most / 3.0).log(base).floor());
        let step = [1.0, 2.0, 5.0].map(|step| step * power).into_iter().find(|step| step * 3.0 >= self.most);
        let step = step.unwrap_or(power * 10.0);
        let values = (0..4).map(|number| f64::from(number) * step).filter(|value| *value <= self.most);
        let line = |value| format!("<path d='M{LEFT},{:.1}H{}' stroke='#e4e7e9'/>", self.y(value), self.width - 10.0);
        values.map(|value| line(value) + &self.label(value, &shown(value, unit))).collect()
    }

    /// Each half minute, in UTC.
    fn times(&self) -> String {
        let first = (self.span.from / 30.0).ceil() * 30.0;
        let whens = (0..).map(|number| first + 30.0 * f64::from(number)).take_while(|when| *when <= self.span.to);
        let label = |when: f64| {
            let [hours, minutes, seconds] = [when / 3600.0 % 24.0, when / 60.0 % 60.0, when % 60.0].map(f64::floor);
            let (x, y) = (self.x(when), self.height - 4.0);
            format!("<text x='{x:.1}' y='{y}' text-anchor='middle'>{hours:02}:{minutes:02}:{seconds:02}</text>")
        };
        whens.map(label).collect()
    }
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    format!("M{}", points.join(" "))
}

/// A number in a unit by Grafana's name of it.
fn shown(value: f64, unit: &str) -> String {
    let scales: &[(f64, &str)] = match unit {
        _ if value.is_infinite() => return "+Inf".to_owned(),
        "percentunit" => &[(0.01, "%")],
        "s" => &[(60.0, " min"), (1.0, " s"), (1e-3, " ms"), (1e-6, " µs")],
        "reqps" => &[(1e3, "K req/s"), (1.0, " req/s")],
        "bytes" => &[(1_048_576.0, " MiB"), (1024.0, " KiB"), (1.0, " B")],
        "Bps" => &[(1e6, " MB/s"), (1e3, " kB/s"), (1.0, " B/s")],
        "short" => &[(1e6, " Mil"), (1e3, " K"), (1.0, "")],
        other => panic!("nobody has said how {other} is written"),
    };
    // Nothing is of no scale.
    let fits = |(factor, _): &&(f64, &str)| if value == 0.0 { *factor <= 1.0 } else { value.abs() >= *factor };
    let (factor, suffix) = scales.iter().find(fits).unwrap_or(&scales[scales.len() - 1]);
    let value = value / factor;
    let places = [100.0, 10.0, 0.0].iter().position(|from| value.abs() >= *from).unwrap_or(0);
    let digits = format!("{value:.places$}");
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{digits}{suffix}")
}

/// The last step that the value reaches.
fn colour_at(thresholds: &Value, value: f64) -> &str {
    let mut steps = list(&thresholds["steps"]).iter().rev();
    let reached = steps.find(|step| step["value"].as_f64().is_none_or(|from| value >= from));
    reached.map_or("inherit", |step| text(&step["color"]))
}

/// A little more, and never 0: it is divided by.
fn above(most: f64) -> f64 {
    if most > 0.0 { most * 1.05 } else { 1.0 }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
