//! A small load generator for what wrk cannot do: a fixed rate without coordinated omission, and an exact number of requests.
//!
//! One thread for each connection, blocking sockets. Each thread owns every n-th slot of one common schedule and sleeps
//! until its slot with a timer slack of 1 ns (13 µs late at the median; tokio's millisecond timer would be 1 ms late). Latency counts from
//! the intended start, so a request that had to wait for the one before it carries that wait.
//!
//! `load rate --target A --path /1k --rate 2000 --connections 32 --seconds 5`
//! `load count --target A --path /1k --requests 2400 [--connections 1]`

#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, Error, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use forebay_comparators::{Options, usage};

const SMALL_STACK: usize = 128 * 1024;
const READ_TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> io::Result<()> {
    let mode = std::env::args().nth(1).unwrap_or_else(|| usage("a mode is missing"));
    let options = Options::from_args_after(1);
    let plan = Plan {
        target: options.require("target"),
        path: options.get("path").unwrap_or_else(|| "/".to_owned()),
        connections: options.get("connections").unwrap_or(1),
        schedule: match mode.as_str() {
            "rate" => Schedule::at_rate(options.require("rate"), options.require("seconds")),
            "count" => Schedule::back_to_back(options.require("requests")),
            other => usage(&format!("`{other}` is not one of rate, count")),
        },
    };
    let mut latencies = plan.run()?;
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1e3;
    println!(
        "{{\"requests\": {}, \"p50_us\": {:.1}, \"p90_us\": {:.1}, \"p99_us\": {:.1}, \"p999_us\": {:.1}, \"max_us\": {:.1}}}",
        latencies.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    Ok(())
}

struct Plan {
    target: SocketAddr,
    path: String,
    connections: usize,
    schedule: Schedule,
}

/// Request `n` starts at `n * gap`, or as soon as its connection is free when there is no gap.
struct Schedule {
    requests: usize,
    gap: Option<Duration>,
}

impl Schedule {
    fn at_rate(rate: f64, seconds: f64) -> Self {
        Self { requests: (rate * seconds) as usize, gap: Some(Duration::from_secs_f64(1.0 / rate)) }
    }

    fn back_to_back(requests: usize) -> Self {
        Self { requests, gap: None }
    }
}

impl Plan {
    fn run(&self) -> io::Result<Vec<Duration>> {
        if self.connections == 0 || self.schedule.requests < self.connections {
            usage("there must be at least one connection and one request for each");
        }
        // All connections stand and have served one request before the clock starts.
        let warm: io::Result<Vec<_>> = (0..self.connections).map(|_| Connection::open(self)).collect();
        let start = Instant::now() + Duration::from_millis(20);
        thread::scope(|scope| {
            let mut workers = Vec::new();
            for (index, connection) in warm?.into_iter().enumerate() {
                let builder = thread::Builder::new().stack_size(SMALL_STACK);
                workers.push(builder.spawn_scoped(scope, move || self.drive(connection, index, start))?);
            }
            let mut latencies = Vec::with_capacity(self.schedule.requests);
            for worker in workers {
                latencies.extend(worker.join().map_err(|_| Error::other("a connection's thread panicked"))??);
            }
            Ok(latencies)
        })
    }

    /// The slots `index`, `index + connections`, ... of the schedule.
    fn drive(&self, mut connection: Connection, index: usize, start: Instant) -> io::Result<Vec<Duration>> {
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let mut latencies = Vec::with_capacity(self.schedule.requests / self.connections + 1);
        for slot in (index..self.schedule.requests).step_by(self.connections) {
            let intended = match self.schedule.gap {
                Some(gap) => start + gap.mul_f64(slot as f64),
                None => Instant::now(),
            };
            thread::sleep(intended.saturating_duration_since(Instant::now()));
            connection.exchange()?;
            latencies.push(intended.elapsed());
        }
        Ok(latencies)
    }
}

struct Connection {
    reader: BufReader<TcpStream>,
    request: Vec<u8>,
    line: String,
    body: Vec<u8>,
}

impl Connection {
    fn open(plan: &Plan) -> io::Result<Self> {
        let stream = TcpStream::connect(plan.target)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", plan.path, plan.target).into_bytes();
        let reader = BufReader::with_capacity(16 * 1024, stream);
        let mut connection = Self { reader, request, line: String::new(), body: Vec::new() };
        connection.exchange()?;
        Ok(connection)
    }

    /// One request and its whole answer, which must be a 200 with a `Content-Length`.
    fn exchange(&mut self) -> io::Result<()> {
        self.reader.get_mut().write_all(&self.request)?;
        if !self.next_line()?.starts_with("HTTP/1.1 200 ") {
            return Err(Error::other(format!("the answer was not 200 but `{}`", self.line.trim_end())));
        }
        let mut length = None;
        while !self.next_line()?.trim_end().is_empty() {
            let (name, value) = self.line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            }
        }
        let length = length.ok_or_else(|| Error::other("the answer had no content-length"))?;
        self.body.resize(length, 0);
        self.reader.read_exact(&mut self.body)
    }

    fn next_line(&mut self) -> io::Result<&str> {
        self.line.clear();
        if self.reader.read_line(&mut self.line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&self.line)
    }
}
