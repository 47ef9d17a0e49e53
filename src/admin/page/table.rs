//! A table once, for a browser, for a terminal and for the live updates of either.

use std::fmt::Write as _;

use super::draw;
use crate::load::report::svg::escape;

/// How a value is to be taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    /// Worth a look.
    Warn,
    /// Somebody should act.
    Bad,
}

impl Tone {
    const fn class(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Warn => "warn",
            Tone::Bad => "bad",
        }
    }

    /// Colours are not seen by everybody.
    const fn mark(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Warn => "!",
            Tone::Bad => "!!",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    pub text: String,
    pub tone: Tone,
    /// A smaller second line.
    pub note: String,
    /// Where its text leads to.
    pub link: Option<String>,
    /// Drawn beside the text: HTML that is safe already.
    pub drawing: String,
    /// The values of a line that is drawn; blocks on a terminal.
    pub line: Vec<f64>,
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    pub fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    pub fn line(values: Vec<f64>) -> Self {
        Self { line: values, ..Self::default() }
    }

    fn html(&self) -> String {
        let mut out = String::new();
        let text = escape(&self.text);
        match &self.link {
            Some(link) => write!(out, "<a href=\"{}\">{text}</a>", escape(link)),
            None => write!(out, "{text}"),
        }
        .expect("writing to a string cannot fail");
        if !self.tone.mark().is_empty() {
            out.push_str(&format!("<b role=\"img\" aria-label=\"{}\">{}</b>", self.tone.class(), self.tone.mark()));
        }
        if !self.note.is_empty() {
            out.push_str(&format!("<small>{}</small>", escape(&self.note)));
        }
        if !self.line.is_empty() {
            out.push_str(&draw::sparkline(&self.line));
        }
        out + &self.drawing
    }

    fn plain(&self) -> String {
        let line = draw::blocks(&self.line, 20);
        let text = printable(&self.text);
        let parts = [text.as_str(), &line, self.tone.mark()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub title: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Number,
    Line,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Unique in its table, and the same as long as it is the same row.
    pub key: String,
    /// The first one names the row.
    pub cells: Vec<Cell>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub id: &'static str,
    pub title: String,
    /// Shown when there are no rows.
    pub empty: &'static str,
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
}

impl Row {
    /// The inside of its `tr`.
    pub fn html(&self, columns: &[Column]) -> String {
        let mut out = String::new();
        for (index, (cell, column)) in self.cells.iter().zip(columns).enumerate() {
            let kind = if column.kind == Kind::Text { "text" } else { "" };
            let classes = [kind, cell.tone.class()].into_iter().filter(|class| !class.is_empty());
            let classes = classes.collect::<Vec<_>>().join(" ");
            let class = if classes.is_empty() { classes } else { format!(" class=\"{classes}\"") };
            let (tag, scope) = if index == 0 { ("th", " scope=\"row\"") } else { ("td", "") };
            out.push_str(&format!("<{tag}{scope}{class}>{}</{tag}>", cell.html()));
        }
        out
    }
}

impl Table {
    pub fn html(&self) -> String {
        let mut out = format!("<section><h2 id=\"{0}-title\">{1}</h2>\n", self.id, escape(&self.title));
        out.push_str(&format!("<p class=\"empty\">{}</p>\n", escape(self.empty)));
        // What scrolls must be reached by the keyboard.
        out.push_str(&format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"{}-title\">",
            self.id
        ));
        out.push_str(&format!("<table aria-labelledby=\"{}-title\"><thead><tr>", self.id));
        for column in &self.columns {
            let class = if column.kind == Kind::Text { " class=\"text\"" } else { "" };
            let (title, help) = (escape(column.title), escape(column.help));
            out.push_str(&format!("<th scope=\"col\"{class} title=\"{help}\">{title}</th>"));
        }
        out.push_str(&format!("</tr></thead>\n<tbody id=\"{}\">\n", self.id));
        for row in &self.rows {
            out.push_str(&format!("<tr data-key=\"{}\">{}</tr>\n", escape(&row.key), row.html(&self.columns)));
        }
        out.push_str("</tbody></table></div></section>\n");
        out
    }

    /// Columns aligned; `paint` may colour what is not plain. When the table is wider than `width`, lines of the past give way,
    /// then titles take two lines, then the last columns are named instead of shown.
    pub fn text(&self, width: usize, paint: &dyn Fn(Tone, &str) -> String) -> String {
        let title = printable(&self.title);
        if self.rows.is_empty() {
            return format!("{title}\n  {}\n", self.empty);
        }
        let plain: Vec<Vec<String>> = self.rows.iter().map(|row| row.cells.iter().map(Cell::plain).collect()).collect();
        let Fitted { shown, left_out, head, widths } = self.fitted(&plain, width);
        let mut out = format!("{title}\n");
        if !left_out.is_empty() {
            out.push_str(&format!("  (a wider terminal shows {})\n", left_out.join(", ")));
        }
        let pad = |text: &str, index: usize| {
            let width = widths[index];
            match self.columns[index].kind {
                Kind::Number => format!("{text:>width$}"),
                Kind::Text | Kind::Line => format!("{text:<width$}"),
            }
        };
        let join = |cells: Vec<String>| format!("  {}\n", cells.join("  ").trim_end());
        let height = shown.iter().map(|index| head[*index].len()).max().unwrap_or(0);
        for line in 0..height {
            // Titles stand on their cells.
            let part = |index: usize| (line + head[index].len()).checked_sub(height).map_or("", |at| head[index][at]);
            out.push_str(&join(shown.iter().map(|index| pad(part(*index), *index)).collect()));
        }
        for (row, plain) in self.rows.iter().zip(&plain) {
            let cells = shown.iter().filter_map(|index| Some((*index, plain.get(*index)?, row.cells.get(*index)?)));
            out.push_str(&join(cells.map(|(index, text, cell)| paint(cell.tone, &pad(text, index))).collect()));
            for note in row.cells.iter().map(|cell| &cell.note).filter(|note| !note.is_empty()) {
                out.push_str(&format!("      {}\n", printable(note)));
            }
        }
        out
    }

    fn fitted(&self, plain: &[Vec<String>], width: usize) -> Fitted {
        let mut fitted = Fitted {
            shown: (0..self.columns.len()).collect(),
            left_out: Vec::new(),
            head: self.columns.iter().map(|column| vec![column.title]).collect(),
            widths: Vec::new(),
        };
        fitted.measure(plain);
        while !fitted.fits(width) {
            let line = fitted.shown.iter().rposition(|index| self.columns[*index].kind == Kind::Line);
            let Some(line) = line else { break };
            fitted.shown.remove(line);
        }
        if !fitted.fits(width) {
            fitted.head = self.columns.iter().map(|column| in_two(column.title)).collect();
            fitted.measure(plain);
        }
        // The name of a row and one number are shown whatever happens.
        while !fitted.fits(width) && fitted.shown.len() > 2 {
            let last = fitted.shown.pop().expect("more than two");
            fitted.left_out.insert(0, self.columns[last].title);
        }
        fitted
    }
}

/// What of a table is shown in a terminal, and how.
struct Fitted {
    /// Numbers of columns.
    shown: Vec<usize>,
    /// Titles.
    left_out: Vec<&'static str>,
    /// Lines of titles, by column, as are the widths.
    head: Vec<Vec<&'static str>>,
    widths: Vec<usize>,
}

impl Fitted {
    fn measure(&mut self, plain: &[Vec<String>]) {
        let of_column = |(index, head): (usize, &Vec<&'static str>)| {
            let cells = plain.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
            cells.chain(head.iter().map(|line| line.chars().count())).max().unwrap_or(0)
        };
        self.widths = self.head.iter().enumerate().map(of_column).collect();
    }

    fn fits(&self, width: usize) -> bool {
        self.shown.iter().map(|index| 2 + self.widths[*index]).sum::<usize>() <= width
    }
}

/// A title on two lines, where the longer is the shortest possible.
fn in_two(title: &'static str) -> Vec<&'static str> {
    let parts = title.match_indices(' ').map(|(at, _)| [&title[..at], &title[at + 1..]]);
    let longer = |parts: &[&str; 2]| parts.iter().map(|part| part.chars().count()).max();
    parts.min_by_key(longer).map_or_else(|| vec![title], Vec::from)
}

/// Without what would steer a terminal or turn the direction of writing.
pub fn printable(text: &str) -> String {
    let steers = |char: char| {
        char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|char| if steers(char) { '\u{fffd}' } else { char }).collect()
}

/// [`Table::text`] without colours.
pub fn unpainted(_: Tone, text: &str) -> String {
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let column = |title, kind| Column { title, help: "Says <what> it is.", kind };
        Table {
            id: "routes",
            title: "Routes & more".into(),
            empty: "none",
            columns: vec![column("name", Kind::Text), column("rate", Kind::Number), column("trend", Kind::Line)],
            rows: vec![Row {
                key: "a\"b".into(),
                cells: vec![
                    Cell { link: Some("/requests?route=a&b".into()), ..Cell::text("<a>") },
                    Cell::text("12/s").tone(Tone::Bad).note("more <b>"),
                    Cell::line(vec![0.0, 1.0, 2.0]),
                ],
            }],
        }
    }

    #[test]
    fn nothing_of_a_value_becomes_markup() {
        let html = table().html();

        assert!(html.contains("<a href=\"/requests?route=a&amp;b\">&lt;a&gt;</a>"), "{html}");
        assert!(html.contains("data-key=\"a&quot;b\""), "{html}");
        assert!(
            html.contains(
                "<td class=\"bad\">12/s<b role=\"img\" aria-label=\"bad\">!!</b><small>more &lt;b&gt;</small>"
            ),
            "{html}"
        );
        assert!(html.contains("title=\"Says &lt;what&gt; it is.\""), "{html}");
    }

    #[test]
    fn text_is_aligned_and_says_what_is_bad_without_colour() {
        let text = table().text(usize::MAX, &unpainted);

        assert_eq!(text, "Routes & more\n  name     rate  trend\n  <a>   12/s !!  ▁▅█\n      more <b>\n");
    }

    #[test]
    fn what_is_narrow_shows_what_fits_and_names_the_rest() {
        let column = |title, kind| Column { title, help: "", kind };
        let columns = vec![
            column("Route", Kind::Text),
            column("Rate", Kind::Number),
            column("2 min", Kind::Line),
            column("In flight now / limit", Kind::Number),
            column("Deadline", Kind::Number),
        ];
        let cells = ["users", "12/s", "▁▂▃▄▅▆", "3 / 400", "1.00 s"].map(Cell::text).to_vec();
        let rows = vec![Row { key: "users".into(), cells }];
        let table = Table { id: "t", title: "Routes".into(), empty: "", columns, rows };
        let lines = |width| table.text(width, &unpainted).lines().map(str::to_owned).collect::<Vec<_>>();

        assert_eq!(lines(80)[1], "  Route  Rate  2 min   In flight now / limit  Deadline");
        assert_eq!(
            lines(50)[1..],
            ["  Route  Rate  In flight now / limit  Deadline", "  users  12/s                3 / 400    1.00 s"]
        );
        assert_eq!(
            lines(40)[1..],
            [
                "                 In flight",
                "  Route  Rate  now / limit  Deadline",
                "  users  12/s      3 / 400    1.00 s"
            ]
        );
        assert_eq!(
            lines(30)[1..],
            [
                "  (a wider terminal shows Deadline)",
                "                 In flight",
                "  Route  Rate  now / limit",
                "  users  12/s      3 / 400"
            ]
        );
        assert_eq!(lines(1)[3], "  users  12/s");
    }

    #[test]
    fn an_empty_table_says_so() {
        let table = Table { rows: Vec::new(), ..table() };

        assert_eq!(table.text(usize::MAX, &unpainted), "Routes & more\n  none\n");
        assert!(table.html().contains("<p class=\"empty\">none</p>"));
    }
}
