//! As much of SVG as the charts of the page need: scales, ticks, a frame with axes, and paths that are short to write.

use std::fmt::Write as _;

/// Of every chart, in the units of its view box.
pub const WIDTH: f64 = 960.0;
const LEFT: f64 = 66.0;
/// Half of the longest label below the axis.
const RIGHT: f64 = 30.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;

/// For text and for attributes in double quotes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed in HTML, and nothing to see.
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// A coordinate: a tenth of a unit is less than is seen, and every digit counts in a long path.
pub fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Where values lie on an axis.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    log: bool,
}

impl Scale {
    fn new(from: f64, to: f64, log: bool) -> Self {
        // One value only is a range too.
        let to = if to > from {
            to
        } else if log {
            from * 2.0
        } else {
            from + 1.0
        };
        Self { from, to, start: 0.0, end: 1.0, log }
    }

    pub fn linear(from: f64, to: f64) -> Self {
        Self::new(from, to, false)
    }

    /// Both above 0.
    pub fn log(from: f64, to: f64) -> Self {
        Self::new(from, to, true)
    }

    fn between(self, start: f64, end: f64) -> Self {
        Self { start, end, ..self }
    }

    pub fn at(&self, value: f64) -> f64 {
        let share = match self.log {
            true => (value.max(self.from) / self.from).ln() / (self.to / self.from).ln(),
            false => (value - self.from) / (self.to - self.from),
        };
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }

    /// Round values within the range, about as many as asked for.
    pub fn ticks(&self, wanted: usize) -> Vec<f64> {
        if self.log { self.log_ticks(wanted) } else { linear_ticks(self.from, self.to, wanted) }
    }

    fn log_ticks(&self, wanted: usize) -> Vec<f64> {
        let decades = self.from.log10().floor() as i32..=self.to.log10().ceil() as i32;
        let of = |steps: &[f64]| -> Vec<f64> {
            let all = decades.clone().flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
            all.filter(|tick| (self.from..=self.to).contains(tick)).collect()
        };
        let candidates = [of(&[1.0, 2.0, 5.0]), of(&[1.0, 3.0]), of(&[1.0])];
        let fitting = candidates.iter().find(|ticks| ticks.len() <= wanted + 2).unwrap_or(&candidates[2]);
        // Within less than a decade, as from 11 to 24 ms, hardly any of these lies: even steps say more.
        if fitting.len() < 3 { linear_ticks(self.from, self.to, wanted) } else { fitting.clone() }
    }
}

fn linear_ticks(from: f64, to: f64, wanted: usize) -> Vec<f64> {
    let rough = (to - from) / wanted.max(1) as f64;
    let size = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * size >= rough * 0.999).unwrap_or(10.0) * size;
    let first = (from / step).ceil() as i64;
    let last = (to / step + 1e-9).floor() as i64;
    (first..=last).map(|n| n as f64 * step).collect()
}

/// A chart under construction.
pub struct Chart {
    pub x: Scale,
    pub y: Scale,
    height: f64,
    body: String,
}

impl Chart {
    pub fn new(height: f64, x: Scale, y: Scale) -> Self {
        let x = x.between(LEFT, WIDTH - RIGHT);
        let y = y.between(height - BOTTOM, TOP);
        Self { x, y, height, body: String::new() }
    }

    /// Top and bottom of the plot.
    pub fn vertical(&self) -> (f64, f64) {
        (TOP, self.height - BOTTOM)
    }

    pub fn raw(&mut self, svg: &str) {
        self.body.push_str(svg);
    }

    fn push(&mut self, args: std::fmt::Arguments<'_>) {
        self.body.write_fmt(args).expect("writing to a string does not fail");
    }

    pub fn x_axis(&mut self, ticks: &[(f64, String)]) {
        let (_, bottom) = self.vertical();
        let (axis, baseline) = (short(bottom), short(bottom + 18.0));
        for (value, label) in ticks {
            let x = short(self.x.at(*value));
            let label = escape(label);
            self.push(format_args!("<path class=tick d=\"M{x} {axis}v4\"/>"));
            self.push(format_args!("<text x={x} y={baseline} text-anchor=middle>{label}</text>"));
        }
    }

    pub fn y_axis(&mut self, wanted: usize, label: impl Fn(f64) -> String) {
        let (left, right) = (short(LEFT), short(WIDTH - RIGHT));
        let mut last = String::new();
        for value in self.y.ticks(wanted) {
            let y = self.y.at(value);
            let text = escape(&label(value));
            // Labels have three digits; what would read the same twice is no help.
            if text == last {
                continue;
            }
            self.push(format_args!("<path class=grid d=\"M{left} {}H{right}\"/>", short(y)));
            self.push(format_args!("<text x={} y={} text-anchor=end>{text}</text>", short(LEFT - 8.0), short(y + 4.0)));
            last = text;
        }
    }

    /// From the top to the bottom of the plot, with a text for whoever points at it.
    pub fn band(&mut self, class: &str, from: f64, to: f64, title: &str) {
        let (top, bottom) = self.vertical();
        let (start, end) = (self.x.at(from), self.x.at(to));
        // A stall of milliseconds is still to be seen in an hour.
        let (x, width) = (short(start), short((end - start).max(1.5)));
        let height = short(bottom - top);
        let (top, title) = (short(top), escape(title));
        self.push(format_args!(
            "<rect class={class} x={x} y={top} width={width} height={height}><title>{title}</title></rect>"
        ));
    }

    /// A line through the points; it is interrupted where there is none.
    pub fn line(&mut self, class: &str, points: impl IntoIterator<Item = (f64, Option<f64>)>) {
        let mut path = String::new();
        let mut pen_is_down = false;
        for (x, y) in points {
            let Some(y) = y else {
                pen_is_down = false;
                continue;
            };
            let letter = if pen_is_down { 'L' } else { 'M' };
            pen_is_down = true;
            let _ = write!(path, "{letter}{} {}", short(self.x.at(x)), short(self.y.at(y)));
        }
        if !path.is_empty() {
            // A point alone has no length; round ends make it a dot.
            self.push(format_args!("<path class=\"line {class}\" d=\"{path}\"/>"));
        }
    }

    /// The area between the points and the axis.
    pub fn area(&mut self, class: &str, points: &[(f64, f64)]) {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
        let (_, bottom) = self.vertical();
        let mut path = format!("M{} {}", short(self.x.at(first.0)), short(bottom));
        for (x, y) in points {
            let _ = write!(path, "L{} {}", short(self.x.at(*x)), short(self.y.at(*y)));
        }
        let _ = write!(path, "L{} {}Z", short(self.x.at(last.0)), short(bottom));
        self.push(format_args!("<path class=\"area {class}\" d=\"{path}\"/>"));
    }

    /// The finished element. `title` and `desc` are what a screen reader says.
    pub fn finish(self, id: &str, title: &str, desc: &str) -> String {
        let (top, bottom) = self.vertical();
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=img aria-labelledby=\"{id}-t {id}-d\">\
             <title id={id}-t>{title}</title><desc id={id}-d>{desc}</desc>{body}\
             <path class=frame d=\"M{LEFT} {top}V{bottom}H{right}\"/></svg>",
            height = self.height,
            title = escape(title),
            desc = escape(desc),
            body = self.body,
            right = WIDTH - RIGHT,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_cannot_become_markup() {
        assert_eq!(escape("<a href=\"x\">&'\u{1b}"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\u{fffd}");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(Scale::linear(0.0, 97.0).ticks(5), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(Scale::linear(0.0, 3.0).ticks(3), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(Scale::log(0.9, 120.0).ticks(6), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(Scale::log(1.0, 1e6).ticks(6).len(), 7);
        assert_eq!(Scale::log(11.0, 24.0).ticks(4), [15.0, 20.0], "less than a decade");
        assert_eq!(Scale::log(10.0, 31.0).ticks(4), [10.0, 20.0, 30.0]);
    }

    #[test]
    fn values_outside_lie_on_the_edge() {
        let scale = Scale::log(1.0, 100.0).between(0.0, 10.0);

        assert_eq!([0.0, 1.0, 10.0, 1e9].map(|value| scale.at(value)), [0.0, 0.0, 5.0, 10.0]);
    }

    #[test]
    fn one_value_is_a_range_too() {
        assert!(Scale::linear(0.0, 0.0).at(0.0).is_finite());
        assert!(Scale::log(5.0, 5.0).at(5.0).is_finite());
    }

    #[test]
    fn a_line_is_interrupted_where_there_is_nothing() {
        let mut chart = Chart::new(100.0, Scale::linear(0.0, 3.0), Scale::linear(0.0, 1.0));

        chart.line("a", [(0.0, Some(0.0)), (1.0, Some(1.0)), (2.0, None), (3.0, Some(0.5))]);

        assert_eq!(chart.body, "<path class=\"line a\" d=\"M66 74L354 12M930 43\"/>");
    }
}
