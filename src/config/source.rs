//! The text of a configuration file and where things stand in it: byte offsets to lines and columns, and the
//! parts that must never be printed because they hold a secret.

use std::ops::Range;

/// A piece of the text, in bytes.
pub type Span = Range<usize>;

/// A file's text with what is needed to quote from it.
#[derive(Debug)]
pub struct Source<'a> {
    name: &'a str,
    text: &'a str,
    /// Where each line begins.
    lines: Vec<usize>,
    /// Parts that are shown as `***`, wherever a line is quoted; in order, and apart from each other.
    hidden: Vec<Span>,
}

/// A line as it may be shown, with the marked part in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    pub text: String,
    /// First marked character, from 0.
    pub start: usize,
    /// Marked characters, at least 1.
    pub width: usize,
}

/// Longer lines are cut, so that a report stays readable whatever the file holds.
const MAX_SHOWN: usize = 140;

impl<'a> Source<'a> {
    pub fn new(name: &'a str, text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name, text, lines, hidden: Vec::new() }
    }

    pub fn name(&self) -> &'a str {
        self.name
    }

    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The text of a span; empty when it does not lie on character boundaries.
    pub fn slice(&self, span: &Span) -> &'a str {
        self.text.get(span.clone()).unwrap_or("")
    }

    /// From now on, a quoted line shows `***` in the place of this span.
    pub fn hide(&mut self, span: Span) {
        let from = self.hidden.partition_point(|hidden| hidden.end < span.start);
        let to = self.hidden.partition_point(|hidden| hidden.start <= span.end);
        let touched = &self.hidden[from..to];
        let start = touched.first().map_or(span.start, |first| first.start.min(span.start));
        let end = touched.last().map_or(span.end, |last| last.end.max(span.end));
        self.hidden.splice(from..to, std::iter::once(start..end));
    }

    /// The same for many: a hostile file may have very many.
    pub fn hide_all(&mut self, spans: Vec<Span>) {
        let mut all = std::mem::take(&mut self.hidden);
        all.extend(spans);
        all.sort_by_key(|span| span.start);
        for span in all {
            self.hide(span);
        }
    }

    /// What is hidden at this place, if anything is.
    pub fn hidden_at(&self, span: &Span) -> Option<&'a str> {
        let hidden = self.hidden.get(self.hidden.partition_point(|hidden| hidden.end <= span.start))?;
        (hidden.start <= span.start).then(|| self.slice(hidden))
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub fn position(&self, at: usize) -> (usize, usize) {
        let at = at.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= at) - 1;
        let before = self.text.get(self.lines[line]..at).unwrap_or("");
        (line + 1, before.chars().count() + 1)
    }

    /// The line of a span's beginning, without the cost of the column.
    pub fn line_of(&self, span: &Span) -> usize {
        self.lines.partition_point(|start| *start <= span.start.min(self.text.len()))
    }

    /// The line on which a span begins, with the span marked as far as it lies on that line.
    pub fn excerpt(&self, span: &Span) -> Excerpt {
        let (start, end) = self.bounds(self.line_of(span));
        // Only what can be shown is looked at: a line may be as long as the file.
        let floor = |at: usize| (start..=at).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(start);
        let (start, end) =
            (floor(span.start.saturating_sub(4 * MAX_SHOWN).max(start)), end.min(span.start + 8 * MAX_SHOWN));
        let end = floor(end.max(start));
        let marked = span.start.clamp(start, end)..span.end.clamp(start, end);
        let mut shown = String::new();
        let (mut mark_start, mut mark_end) = (None, 0);
        for (at, piece, width) in self.pieces(start, end) {
            if mark_start.is_none() && at + width > marked.start {
                mark_start = Some(shown.chars().count());
            }
            shown.push_str(piece);
            if at < marked.end {
                mark_end = shown.chars().count();
            }
        }
        let first = mark_start.unwrap_or_else(|| shown.chars().count());
        cut(Excerpt { text: shown, start: first, width: mark_end.saturating_sub(first).max(1) })
    }

    /// The bytes of a line (from 1) without its line end.
    fn bounds(&self, line: usize) -> (usize, usize) {
        let start = self.lines[line - 1];
        let end = self.lines.get(line).map_or(self.text.len(), |next| next - 1);
        (start, start + self.text.get(start..end).unwrap_or("").trim_end_matches('\r').len())
    }

    /// The characters of a line, a hidden part being one piece `***`: (offset, what is shown, bytes it stands for).
    fn pieces(&self, start: usize, end: usize) -> Vec<(usize, &str, usize)> {
        let mut pieces = Vec::new();
        let mut at = start;
        let mut hidden = &self.hidden[self.hidden.partition_point(|hidden| hidden.end <= start)..];
        while at < end {
            while hidden.first().is_some_and(|hidden| hidden.end <= at) {
                hidden = &hidden[1..];
            }
            if let Some(hidden) = hidden.first().filter(|hidden| hidden.contains(&at)) {
                let width = hidden.end.min(end) - at;
                pieces.push((at, "***", width));
                at += width;
                continue;
            }
            let width = self.text[at..].chars().next().map_or(1, char::len_utf8);
            // A tab or control character would move the caret away from what it marks.
            let piece = self.text.get(at..at + width).filter(|c| !c.chars().any(char::is_control)).unwrap_or(" ");
            pieces.push((at, piece, width));
            at += width;
        }
        pieces
    }
}

/// Keeps the marked part and what stands around it, within [`MAX_SHOWN`] characters.
fn cut(excerpt: Excerpt) -> Excerpt {
    let length = excerpt.text.chars().count();
    if length <= MAX_SHOWN {
        return excerpt;
    }
    let from = excerpt.start.saturating_sub(MAX_SHOWN / 2).min(length - MAX_SHOWN);
    let text: String = excerpt.text.chars().skip(from).take(MAX_SHOWN).collect();
    let start = excerpt.start - from;
    Excerpt { text, start, width: excerpt.width.min(MAX_SHOWN.saturating_sub(start)).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let source = Source::new("f", "a = 1\nä = \"é\" # x\n");

        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(6), (2, 1));
        assert_eq!(source.position(11), (2, 5));
        assert_eq!(source.position(9_999), (3, 1));
    }

    #[test]
    fn an_excerpt_marks_the_span_on_its_line() {
        let source = Source::new("f", "first\r\nrate = \"x\"\r\n");

        assert_eq!(source.excerpt(&(14..17)), Excerpt { text: "rate = \"x\"".into(), start: 7, width: 3 });
    }

    #[test]
    fn hidden_parts_are_masked_and_the_mark_follows() {
        let mut source = Source::new("f", "token = \"s3cr3t-value\" # why");
        source.hide(8..22);

        let excerpt = source.excerpt(&(8..22));

        assert_eq!(excerpt, Excerpt { text: "token = *** # why".into(), start: 8, width: 3 });
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_mark() {
        let text = format!("{}BAD{}", "x".repeat(5_000), "y".repeat(5_000));
        let source = Source::new("f", &text);

        let excerpt = source.excerpt(&(5_000..5_003));

        assert_eq!(excerpt.text.chars().count(), MAX_SHOWN);
        assert_eq!(&excerpt.text[excerpt.start..excerpt.start + excerpt.width], "BAD");
    }
}
