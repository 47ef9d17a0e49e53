//! What is drawn: SVG whose colours are classes of the style sheet, since the page's policy allows no style in place.

use std::fmt::Write as _;

use crate::load::report::svg::{escape, short};

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const SPARK_WIDTH: f64 = 120.0;
const SPARK_HEIGHT: f64 = 22.0;

/// A line from nothing up to the greatest value; NaN is a gap. The number beside it is what a screen reader gets.
pub fn sparkline(values: &[f64]) -> String {
    let top = top(values);
    let step = SPARK_WIDTH / (super::history::SPARK_SECONDS - 1) as f64;
    let start = SPARK_WIDTH - step * values.len().saturating_sub(1) as f64;
    let mut path = String::new();
    let mut pen = 'M';
    for (index, value) in values.iter().enumerate() {
        if value.is_nan() {
            pen = 'M';
            continue;
        }
        let (x, y) = (start + step * index as f64, SPARK_HEIGHT - 1.0 - value / top * (SPARK_HEIGHT - 2.0));
        put(&mut path, format_args!("{pen}{} {}", short(x), short(y)));
        // A value between two gaps is a point.
        let alone = pen == 'M' && values.get(index + 1).is_none_or(|next| next.is_nan());
        pen = 'L';
        if alone {
            path.push_str("h.5");
        }
    }
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 {SPARK_WIDTH} {SPARK_HEIGHT}\" aria-hidden=\"true\"><path d=\"{path}\"/></svg>"
    )
}

/// The same for a terminal: the greatest of as many values as fit into each of `width` blocks.
pub fn blocks(values: &[f64], width: usize) -> String {
    let top = top(values);
    let level = |chunk: &[f64]| {
        let most = chunk.iter().copied().filter(|value| !value.is_nan()).fold(f64::NAN, f64::max);
        if most.is_nan() { ' ' } else { LEVELS[(most / top * (LEVELS.len() - 1) as f64).round() as usize] }
    };
    values.chunks(values.len().div_ceil(width.max(1)).max(1)).map(level).collect()
}

/// Above 0, so that it can be divided by.
fn top(values: &[f64]) -> f64 {
    values.iter().copied().filter(|value| !value.is_nan()).fold(1e-9, f64::max)
}

/// A part of a waterfall.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// A class of the style sheet.
    pub class: &'static str,
    pub start: f64,
    pub length: f64,
}

const FALL_WIDTH: f64 = 320.0;
const FALL_ROW: f64 = 12.0;

/// Rows of bars on one axis from 0 to `total`; what they are is in the text beside them.
pub fn waterfall(rows: &[Vec<Bar>], total: f64) -> String {
    let scale = FALL_WIDTH / total.max(1e-9);
    let height = FALL_ROW * rows.len() as f64;
    let mut out = format!("<svg class=\"fall\" viewBox=\"0 0 {FALL_WIDTH} {height}\" aria-hidden=\"true\">");
    for (index, row) in rows.iter().enumerate() {
        let y = FALL_ROW * index as f64 + 1.0;
        put(&mut out, format_args!("<rect class=\"track\" y=\"{y}\" width=\"{FALL_WIDTH}\" height=\"9\"/>"));
        for bar in row {
            let x = (bar.start * scale).min(FALL_WIDTH - 1.0);
            // What happened is seen, however short.
            let width = (bar.length * scale).clamp(1.0, FALL_WIDTH - x);
            let (x, width, class) = (short(x), short(width), bar.class);
            put(&mut out, format_args!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"9\"/>"));
        }
    }
    out + "</svg>"
}

/// A heat map: how many requests took how long, column by column.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat<'a> {
    /// The lowest row's upper bound in seconds is 2^(first/4); each row above is a quarter of an octave more.
    pub first: i32,
    /// The oldest first; each with a count for every row, the lowest first.
    pub columns: &'a [Vec<u64>],
    /// How many columns there is room for.
    pub room: usize,
    pub seconds_per_column: u64,
    /// Names and seconds of lines across.
    pub lines: &'a [(String, f64)],
    pub label: &'a str,
}

const HEAT_WIDTH: f64 = 960.0;
const HEAT_LEFT: f64 = 64.0;
const HEAT_TOP: f64 = 8.0;
const HEAT_BOTTOM: f64 = 24.0;
const HEAT_ROW: f64 = 9.0;

pub fn heat(heat: &Heat<'_>) -> String {
    let rows = heat.columns.first().map_or(1, Vec::len);
    let (height, width) = (HEAT_ROW * rows as f64, HEAT_WIDTH - HEAT_LEFT);
    let bottom = HEAT_TOP + height;
    let cell = width / heat.room as f64;
    let most = heat.columns.iter().flatten().copied().max().unwrap_or(0).max(1);
    // A quarter of an octave is one row, and the first row ends at its bound.
    let y_of = |seconds: f64| bottom - (seconds.log2() * 4.0 - f64::from(heat.first) + 1.0) * HEAT_ROW;

    let mut out = format!(
        "<svg class=\"heat\" viewBox=\"0 0 {HEAT_WIDTH} {}\" role=\"img\" aria-label=\"{}\">\
         <rect class=\"track\" x=\"{HEAT_LEFT}\" y=\"{HEAT_TOP}\" width=\"{width}\" height=\"{height}\"/>",
        short(bottom + HEAT_BOTTOM),
        escape(heat.label)
    );
    let offset = heat.room.saturating_sub(heat.columns.len());
    for (column, counts) in heat.columns.iter().enumerate() {
        let x = short(HEAT_LEFT + cell * (offset + column) as f64);
        for (row, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let y = short(bottom - HEAT_ROW * (row + 1) as f64);
            put(
                &mut out,
                format_args!(
                    "<rect class=\"h{}\" x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{HEAT_ROW}\"/>",
                    shade(*count, most),
                    short(cell)
                ),
            );
        }
    }
    // Every octave, or every other one where there are many.
    let step = if rows > 40 { 8 } else { 4 };
    for row in (0..rows as i32).filter(|row| (heat.first + row).rem_euclid(step) == 0) {
        let seconds = 2f64.powf(f64::from(heat.first + row) / 4.0);
        let y = y_of(seconds);
        let label = crate::load::report::format::time(seconds * 1e9);
        put(
            &mut out,
            format_args!("<text x=\"{}\" y=\"{}\" class=\"end\">{label}</text>", HEAT_LEFT - 6.0, short(y + 4.0)),
        );
    }
    let whole = heat.room as u64 * heat.seconds_per_column;
    for part in 0..=5 {
        let ago = whole * (5 - part) / 5;
        let x = HEAT_LEFT + width * part as f64 / 5.0;
        let (label, class) = match (ago, part) {
            (0, _) => ("now".to_owned(), "end"),
            (_, 0) => (format!("{ago} s ago"), ""),
            _ => (format!("{ago} s"), "middle"),
        };
        put(
            &mut out,
            format_args!("<text x=\"{}\" y=\"{}\" class=\"{class}\">{label}</text>", short(x), short(bottom + 17.0)),
        );
    }
    for (name, seconds) in heat.lines {
        let y = y_of(*seconds);
        if y < HEAT_TOP || y > bottom {
            continue;
        }
        put(
            &mut out,
            format_args!(
                "<path class=\"limit\" d=\"M{HEAT_LEFT} {0}H{HEAT_WIDTH}\"/><text class=\"limit\" x=\"{1}\" y=\"{2}\">{3}</text>",
                short(y),
                HEAT_LEFT + 6.0,
                short(if y < HEAT_TOP + 14.0 { y + 13.0 } else { y - 4.0 }),
                escape(name)
            ),
        );
    }
    out + "</svg>"
}

/// 1 to 8: by size, since one slow request among thousands is what is looked for.
fn shade(count: u64, most: u64) -> u32 {
    let share = (count as f64).ln_1p() / (most as f64).ln_1p();
    1 + (share * 7.0).round() as u32
}

fn put(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_ends_at_the_right_and_has_gaps() {
        let drawn = sparkline(&[1.0, f64::NAN, 2.0, 0.0]);

        assert!(drawn.contains("M117 11h.5M119 1L120 21\""), "{drawn}");
        assert!(sparkline(&[0.0]).contains("M120 21h.5"), "all zero lies on the floor");
    }

    #[test]
    fn blocks_show_the_greatest_of_those_that_share_one() {
        assert_eq!(blocks(&[0.0, 7.0, 0.0, 0.0, f64::NAN, f64::NAN], 3), "█▁ ");
        assert_eq!(blocks(&[], 3), "");
    }

    #[test]
    fn a_waterfall_shows_short_stages_and_stays_inside() {
        let row =
            vec![Bar { class: "queue", start: 0.0, length: 0.001 }, Bar { class: "body", start: 10.0, length: 5.0 }];

        let drawn = waterfall(&[row], 10.0);

        assert!(drawn.contains("class=\"queue\" x=\"0\" y=\"1\" width=\"1\""), "{drawn}");
        assert!(drawn.contains("class=\"body\" x=\"319\" y=\"1\" width=\"1\""), "{drawn}");
    }

    #[test]
    fn the_deadline_lies_where_its_latency_does() {
        let columns = [vec![0, 3], vec![1, 0]];
        let lines = [("deadline 1 s".to_owned(), 1.0), ("far".to_owned(), 1000.0)];
        let map = Heat { first: -1, columns: &columns, room: 4, seconds_per_column: 3, lines: &lines, label: "a & b" };

        let drawn = heat(&map);

        // Rows end at 0.84 s and at 1 s: the line of 1 s is the upper edge of the upper one.
        assert!(drawn.contains("class=\"limit\" d=\"M64 8H960\""), "{drawn}");
        assert!(drawn.contains("<rect class=\"h8\" x=\"512\" y=\"8\" width=\"224\""), "{drawn}");
        assert!(drawn.contains("<rect class=\"h5\" x=\"736\" y=\"17\""), "{drawn}");
        assert!(!drawn.contains("far") && drawn.contains("a &amp; b"), "{drawn}");
    }
}
