//! The exit codes: one list for all commands, so that scripts and init systems can rely on them.
//!
//! The numbers follow `sysexits.h` where it has one for the case, and the shell's 128 + signal otherwise.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command did what was asked. An orderly stop after SIGTERM or SIGINT counts, also when the drain
    /// limit cut requests: the limit is part of the configuration, and the log says how many were cut.
    Done,
    /// Something failed at run time: a port in use, an unreadable certificate, an unhealthy answer to `healthcheck`.
    Failed,
    /// A load test ran and missed one of its gates.
    GateMissed,
    /// A load test ran, but its numbers mean nothing (the generator itself was the bottleneck, ...).
    Void,
    /// The command line is wrong (`EX_USAGE`).
    Usage,
    /// The configuration is wrong (`EX_CONFIG`). Trying again does not help: systemd's
    /// `RestartPreventExitStatus=78` is made for it.
    BadConfig,
    /// A second signal ended an orderly stop before it was complete; a load test is interrupted by the first, since
    /// what it leaves is not the result that was asked for. The same for SIGTERM and SIGINT: what
    /// matters to a script is that work was cut, not which key was pressed.
    Interrupted,
}

impl Exit {
    pub const ALL: [Exit; 7] =
        [Exit::Done, Exit::Failed, Exit::GateMissed, Exit::Void, Exit::Usage, Exit::BadConfig, Exit::Interrupted];

    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::GateMissed => 3,
            Exit::Void => 4,
            Exit::Usage => 64,
            Exit::BadConfig => 78,
            Exit::Interrupted => 130,
        }
    }

    /// For `--help` and the documentation.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "fine",
            Exit::Failed => "runtime failure",
            Exit::GateMissed => "a gate was missed",
            Exit::Void => "the run is void",
            Exit::Usage => "wrong usage",
            Exit::BadConfig => "bad configuration",
            Exit::Interrupted => "interrupted by a second signal",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_documented_ones() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();

        assert_eq!(codes, [0, 1, 3, 4, 64, 78, 130]);
    }
}
