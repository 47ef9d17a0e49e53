//! `forebay top`: the built-in page in a terminal. Asks a running process for a view as JSON and shows it as the page's text
//! has it; knows nothing else of that process.

mod ask;
mod keys;
mod screen;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::ask::Question;
use self::keys::{Key, Keys};
use self::screen::{Help, Screen};
use crate::admin::page::views::Name;
use crate::exit_code::Exit;
use crate::load::report::{Look, is_dumb_terminal};
use crate::output::Reader;
use crate::shutdown::Stops;

const TOKEN: &str = "FOREBAY_ADMIN_TOKEN";

#[derive(Debug, Args)]
pub struct Options {
    /// The admin listener of the running process.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901", value_parser = crate::config::address_option)]
    pub admin: SocketAddr,
    /// What to show.
    #[arg(value_enum, default_value_t = Shown::Overview)]
    pub view: Shown,
    /// Only this route, where the view has a choice.
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Show it once and end; without colours when the output is no terminal.
    #[arg(long)]
    pub once: bool,
    /// Between two pictures.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = crate::cli::timeout)]
    pub every: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shown {
    Overview,
    Latency,
    Requests,
    Limits,
}

impl Shown {
    const ALL: [Self; 4] = [Self::Overview, Self::Latency, Self::Requests, Self::Limits];

    fn next(self) -> Self {
        let place = Self::ALL.iter().position(|shown| *shown == self).unwrap_or_default();
        Self::ALL[(place + 1) % Self::ALL.len()]
    }

    const fn name(self) -> Name {
        match self {
            Self::Overview => Name::Overview,
            Self::Latency => Name::Latency,
            Self::Requests => Name::Requests,
            Self::Limits => Name::Limits,
        }
    }
}

impl Options {
    fn help(&self, view: Shown) -> Help {
        let route = self.route.as_ref().map_or_else(String::new, |route| format!(" --route {route}"));
        let whole = format!("forebay top {} --admin {}{route} --once", view.name().as_str(), self.admin);
        Help { keys: Key::HELP, whole }
    }
}

/// Shows the view until `q` or Ctrl-C, or once. A process that cannot be asked at first is an error; one that is gone later is
/// waited for.
pub async fn run(options: &Options) -> Result<Exit, String> {
    let token = std::env::var(TOKEN).ok();
    let mut question = Question::new(options.admin, options.view.name(), options.route.as_deref(), token);
    let mut parts = question.ask().await?;
    let stdout = io::stdout();
    if options.once || !stdout.is_terminal() || is_dumb_terminal() {
        loop {
            let reader = screen::print(&parts, &Look::of(&stdout)).map_err(|error| error.to_string())?;
            if options.once || reader == Reader::Gone {
                return Ok(Exit::Done);
            }
            tokio::time::sleep(options.every).await;
            parts = question.ask().await?;
        }
    }
    // Told to end by another, too, it gives the terminal back.
    let mut stops = Stops::new().map_err(|error| error.to_string())?;
    let mut screen = Screen::open(stdout).map_err(|error| error.to_string())?;
    let shown = show(&mut question, options, parts, &mut screen);
    tokio::select! {
        shown = shown => shown.map_err(|error| error.to_string())?,
        _ = stops.next() => {}
    }
    Ok(Exit::Done)
}

/// Until the key for the end, or the terminal's.
async fn show(
    question: &mut Question,
    options: &Options,
    mut parts: Vec<crate::admin::page::views::Part>,
    screen: &mut Screen,
) -> io::Result<()> {
    let mut view = options.view;
    let mut keys = Keys::open()?;
    let mut trouble = None;
    loop {
        screen.draw(&parts, trouble.as_deref(), &options.help(view))?;
        tokio::select! {
            key = keys.next() => {
                view = match key {
                    Key::End => return Ok(()),
                    Key::Next => view.next(),
                    Key::View(view) => view,
                };
                question.turn_to(view.name());
            }
            () = tokio::time::sleep(options.every) => {}
        }
        match question.ask().await {
            Ok(news) => (parts, trouble) = (news, None),
            Err(error) => trouble = Some(error),
        }
    }
}
