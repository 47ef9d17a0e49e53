//! Memory as jemalloc sees it, and the process's CPU time.

use std::sync::atomic::{AtomicU64, Ordering};

use tikv_jemalloc_ctl::{epoch, stats};

use super::catalogue;
use super::snapshot::Snapshot;

/// The most allocated memory seen so far.
#[derive(Debug, Default)]
pub(super) struct Peak(AtomicU64);

impl Peak {
    /// Looks at the allocator; called by the canary once a second and by each scrape.
    pub(super) fn sample(&self) {
        // jemalloc answers from a cache which this renews; it fails only in a build without statistics.
        if epoch::advance().is_ok()
            && let Ok(allocated) = stats::allocated::read()
        {
            self.0.fetch_max(allocated as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn snapshot(&self, snapshot: &mut Snapshot) {
        self.sample();
        let states = [
            ("allocated", stats::allocated::read()),
            ("active", stats::active::read()),
            ("resident", stats::resident::read()),
            ("retained", stats::retained::read()),
        ];
        for (state, bytes) in states {
            if let Ok(bytes) = bytes {
                snapshot.number(&catalogue::ALLOCATOR_BYTES, &[state], bytes as f64);
            }
        }
        snapshot.number(&catalogue::ALLOCATOR_PEAK, &[], self.0.load(Ordering::Relaxed) as f64);
    }
}

/// User and system CPU time of this process, to the kernel's tick of 10 ms.
pub(super) fn process_cpu_seconds() -> Option<f64> {
    parse_cpu_seconds(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    /// The kernel reports in `USER_HZ`, which is 100 on every architecture that Rust has a Linux target for.
    const TICKS_PER_SECOND: f64 = 100.0;
    // The second field is the program's name in parentheses and may hold anything; utime and stime are fields 14, 15.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_a_name_with_spaces_and_parentheses() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 4 0 1000 1 1";
        assert_eq!(parse_cpu_seconds(stat), Some(1.75));
        assert_eq!(parse_cpu_seconds("garbage"), None);
    }
}
