//! Operations: the command line and its exit codes, start and stop, reload, the admin listener, hand-over; all with
//! the real binary.

mod command_line;
mod inherit;
mod process;
mod slow_scrapers;
mod stalled_log;
mod top;
mod under_load;
