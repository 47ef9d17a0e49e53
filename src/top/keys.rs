//! Keys that somebody presses, one by one and without an echo; the terminal is given back at the end.

use std::io::{self, IsTerminal, Stdin};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::AsyncReadExt;

use super::Shown;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    End,
    /// The view after this one.
    Next,
    View(Shown),
}

impl Key {
    /// What the last line says about them.
    pub const HELP: &str = "q ends, Tab or 1 to 4 turn to another view";

    fn of(byte: u8) -> Option<Self> {
        match byte {
            b'q' | b'Q' => Some(Self::End),
            b'\t' => Some(Self::Next),
            b'1'..=b'4' => Some(Self::View(Shown::ALL[usize::from(byte - b'1')])),
            _ => None,
        }
    }
}

/// The standard input as keys. Without a terminal there are none, and waiting for one never ends.
#[derive(Debug)]
pub struct Keys {
    terminal: Stdin,
    /// How it was.
    before: Option<Termios>,
    input: tokio::io::Stdin,
}

impl Keys {
    pub fn open() -> io::Result<Self> {
        let terminal = io::stdin();
        let before = terminal.is_terminal().then(|| tcgetattr(&terminal)).transpose()?;
        if let Some(before) = &before {
            let mut now = before.clone();
            // Ctrl-C stays a signal.
            now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            tcsetattr(&terminal, OptionalActions::Now, &now)?;
        }
        Ok(Self { terminal, before, input: tokio::io::stdin() })
    }

    /// May be dropped and called again; a key that comes in between is not lost.
    pub async fn next(&mut self) -> Key {
        while self.before.is_some() {
            match self.input.read_u8().await.map(Key::of) {
                Ok(Some(key)) => return key,
                Ok(None) => {}
                // The terminal is gone, and the output will say so.
                Err(_) => break,
            }
        }
        std::future::pending().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nobody is left to be told that the terminal is gone.
            let _ = tcsetattr(&self.terminal, OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_last_line_says() {
        assert_eq!(b"qQ\t14".map(Key::of), {
            let view = |view| Some(Key::View(view));
            [Some(Key::End), Some(Key::End), Some(Key::Next), view(Shown::Overview), view(Shown::Limits)]
        });
        assert_eq!(b"05x\n\x1b".map(Key::of), [None; 5]);
        assert_eq!(Shown::Limits.next(), Shown::Overview);
    }
}
