//! The terminal: pictures one over the other on a screen of their own, which is given back at the end.

use std::io::{self, IsTerminal, Stdout, Write};

use crate::admin::page::table::Tone;
use crate::admin::page::views::{self, Part};
use crate::load::report::Look;
use crate::output::{self, Reader};

/// Leaves the screen when dropped.
#[derive(Debug)]
pub struct Screen {
    output: Stdout,
}

impl Screen {
    pub fn open(mut output: Stdout) -> io::Result<Self> {
        // The other screen, without a cursor and without wrapping: what is too long is cut.
        output.write_all(b"\x1b[?1049h\x1b[?25l\x1b[?7l")?;
        Ok(Self { output })
    }

    /// One write for the whole picture, or it flickers.
    pub fn draw(&mut self, parts: &[Part], trouble: Option<&str>, help: &Help) -> io::Result<()> {
        let rows = rustix::termios::tcgetwinsize(&self.output).map_or(24, |size| usize::from(size.ws_row));
        let picture = picture(parts, &Look::of(&self.output), trouble, help, rows.max(3));
        self.output.write_all(picture.as_bytes())?;
        self.output.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to be told that the terminal is gone.
        let _ = self.output.write_all(b"\x1b[?7h\x1b[?25h\x1b[?1049l").and_then(|()| self.output.flush());
    }
}

/// What the last lines say.
#[derive(Debug)]
pub struct Help {
    pub keys: &'static str,
    /// The command that shows the view whole.
    pub whole: String,
}

/// From the upper left, each line to its end, the rest cleared.
fn picture(parts: &[Part], look: &Look, trouble: Option<&str>, help: &Help, rows: usize) -> String {
    let mut lines: Vec<String> = text(parts, look, look.width).lines().map(str::to_owned).collect();
    let last = match trouble {
        Some(trouble) => look.bad(format!("{trouble}; trying again")).into_owned(),
        None => look.dim(help.keys).into_owned(),
    };
    if lines.len() > rows - 1 {
        let hidden = lines.len() - (rows - 2);
        lines.truncate(rows - 2);
        lines.push(look.dim(format!("... {hidden} more lines: {} | less", help.whole)).into_owned());
    }
    lines.push(last);
    format!("\x1b[H{}\x1b[J", lines.iter().map(|line| format!("{line}\x1b[K")).collect::<Vec<_>>().join("\r\n"))
}

/// For a pipe, or once.
pub fn print(parts: &[Part], look: &Look) -> io::Result<Reader> {
    let width = if io::stdout().is_terminal() { look.width } else { usize::MAX };
    output::print(&text(parts, look, width))
}

fn text(parts: &[Part], look: &Look, width: usize) -> String {
    let paint = |tone: Tone, text: &str| match tone {
        Tone::Plain => text.to_owned(),
        Tone::Warn => look.bold(text).into_owned(),
        Tone::Bad => look.bad(text).into_owned(),
    };
    views::text(parts, width, &paint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::page::table::{Cell, Column, Kind, Row, Table};

    fn parts() -> Vec<Part> {
        let columns = ["name", "rate"].map(|title| Column { title, help: "", kind: Kind::Text }).to_vec();
        let row =
            |name: &str, tone| Row { key: name.into(), cells: vec![Cell::text(name), Cell::text("3").tone(tone)] };
        let rows = vec![row("a", Tone::Plain), row("b", Tone::Bad), row("c", Tone::Warn)];
        let table = Table { id: "t", title: "T".into(), empty: "", columns, rows };
        vec![Part::Block { id: "state", html: String::new(), text: "up\n".into() }, Part::Table(table)]
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let help = Help { keys: "q ends", whole: "forebay top limits --once".into() };
        let whole = picture(&parts(), &Look::PLAIN, None, &help, 24);
        let cut = picture(&parts(), &Look::PLAIN, Some("gone"), &help, 5);

        assert_eq!(whole.matches("\r\n").count(), 7, "{whole}");
        assert!(whole.ends_with("q ends\x1b[K\x1b[J"), "{whole:?}");
        let lines: Vec<&str> = cut.split("\r\n").collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[3].starts_with("... 4 more lines: forebay top limits --once | less"), "{cut:?}");
        assert!(lines[4].starts_with("gone; trying again"), "{cut:?}");
    }

    #[test]
    fn colours_are_for_terminals_only() {
        let coloured = text(&parts(), &Look { colour: true, width: 80 }, 80);

        assert!(coloured.contains("\x1b[1;31m3 !!\x1b[0m"), "{coloured:?}");
        assert!(!text(&parts(), &Look::PLAIN, 80).contains('\x1b'));
    }

    #[test]
    fn what_a_process_says_does_not_steer_the_terminal() {
        let mut parts = parts();
        let Part::Table(table) = &mut parts[1] else { panic!("a table") };
        table.title = "T\u{9b}2J".into();
        table.rows[0].cells[0] = Cell::text("a\x1b[2J\nb").note("c\u{202e}d");
        parts[0] = Part::Block { id: "state", html: String::new(), text: "up\x1b]0;title\x07\nsecond\n".into() };

        let shown = text(&parts, &Look::PLAIN, 80);

        assert!(!shown.contains(['\x1b', '\x07', '\u{9b}', '\u{202e}']), "{shown:?}");
        assert!(shown.starts_with("up\u{fffd}]0;title\u{fffd}\nsecond\n"), "{shown:?}");
        assert!(shown.contains("a\u{fffd}[2J\u{fffd}b"), "{shown:?}");
    }
}
