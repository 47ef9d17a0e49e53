//! Reading a gate: name, comparison, limit; each mistake with its place and with what to write instead.

use super::{Compare, Condition, Counted, Gate, GateError, Limit, Range, Statistic, Times, parse_duration};

const NAMES: &str = "errors, http_errors, connection_errors, timeouts, unfinished, shed, unsent, achieved, \
                     different, status_5xx, status_503";
const STATISTICS: &str = "p50, p90, p95, p99, p99.9, max or mean";
/// The counters by name, for what they are compared with.
const COUNTED: [(&str, Counted); 9] = [
    ("errors", Counted::Errors),
    ("http_errors", Counted::HttpErrors),
    ("connection_errors", Counted::ConnectionErrors),
    ("timeouts", Counted::Timeouts),
    ("unfinished", Counted::Unfinished),
    ("shed", Counted::Shed),
    ("unsent", Counted::Unsent),
    ("achieved", Counted::Achieved),
    ("different", Counted::Different),
];
const COMPARE: [(&str, Compare); 6] = [
    ("<=", Compare::AtMost),
    (">=", Compare::AtLeast),
    ("==", Compare::Equal),
    ("<", Compare::Below),
    (">", Compare::Above),
    ("=", Compare::Equal),
];

/// What a name stands for.
enum Subject {
    Time(Times, Statistic),
    Count(Counted),
}

pub(super) fn gate(text: &str) -> Result<Gate, GateError> {
    let gate = Text(text);
    let Some((at, sign, compare)) = comparison(text) else {
        return Err(gate.error(0..text.len(), "has no comparison", "write it as `p99<250ms` or `errors<1%`"));
    };
    let (name, limit) = (gate.trimmed(0..at), gate.trimmed(at + sign..text.len()));
    let condition = match gate.subject(name)? {
        Subject::Time(of, statistic) => {
            if compare == Compare::Equal {
                return Err(gate.error(at..at + sign, "compares a time with `=`", "write `<` or `<=`"));
            }
            Condition::Time { of, statistic, compare, limit_ns: gate.time(limit)? }
        }
        Subject::Count(of) => Condition::Count { of, compare, limit: gate.limit(of, limit)? },
    };
    Ok(Gate { text: text.trim().to_owned(), condition })
}

/// The first comparison: where it is and how long.
fn comparison(text: &str) -> Option<(usize, usize, Compare)> {
    let at = text.find(['<', '>', '='])?;
    let (sign, compare) = COMPARE.iter().find(|(sign, _)| text[at..].starts_with(sign))?;
    Some((at, sign.len(), *compare))
}

struct Text<'a>(&'a str);

impl Text<'_> {
    fn error(&self, span: Range<usize>, problem: impl Into<String>, help: impl Into<String>) -> GateError {
        GateError { text: self.0.to_owned(), span, problem: problem.into(), help: help.into() }
    }

    fn trimmed(&self, span: Range<usize>) -> Range<usize> {
        let part = &self.0[span.clone()];
        let start = span.start + (part.len() - part.trim_start().len());
        start..(start + part.trim().len())
    }

    fn subject(&self, span: Range<usize>) -> Result<Subject, GateError> {
        let name = &self.0[span.clone()];
        if name.is_empty() {
            return Err(self.error(span, "names nothing to compare", format!("write {STATISTICS}, or {NAMES}")));
        }
        if let Some(colon) = name.find(':') {
            let of = self.times(span.start..span.start + colon)?;
            return self.statistic(of, span.start + colon + 1..span.end);
        }
        if let Some((_, counted)) = COUNTED.iter().find(|(known, _)| *known == name) {
            return Ok(Subject::Count(*counted));
        }
        match name.strip_prefix("status_") {
            Some(_) => self.status(span.start + "status_".len()..span.end),
            None => self.statistic(Times::Response, span),
        }
    }

    fn times(&self, span: Range<usize>) -> Result<Times, GateError> {
        match &self.0[span.clone()] {
            "response" => Ok(Times::Response),
            "service" => Ok(Times::Service),
            "lateness" => Ok(Times::Lateness),
            other => {
                Err(self.error(span, format!("has the unknown time `{other}`"), "write response, service or lateness"))
            }
        }
    }

    fn statistic(&self, of: Times, span: Range<usize>) -> Result<Subject, GateError> {
        let name = &self.0[span.clone()];
        let statistic = match name {
            "max" => Statistic::Max,
            "mean" | "avg" => Statistic::Mean,
            _ => match name.strip_prefix('p') {
                Some(digits) if digits.starts_with(|first: char| first.is_ascii_digit()) => {
                    Statistic::Quantile(self.quantile(span.start + 1..span.end)?)
                }
                _ => return Err(self.unknown(span)),
            },
        };
        Ok(Subject::Time(of, statistic))
    }

    /// The likeliest name, if one is near.
    fn unknown(&self, span: Range<usize>) -> GateError {
        let name = &self.0[span.clone()];
        let near = COUNTED.iter().map(|(known, _)| *known).chain(["mean", "max", "status_5xx"]);
        let help = near
            .map(|known| (strsim::jaro(known, name), known))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness > 0.8)
            .map_or_else(|| format!("write {STATISTICS}, or {NAMES}"), |(_, known)| format!("write `{known}`"));
        self.error(span, format!("has the unknown name `{name}`"), help)
    }

    fn quantile(&self, span: Range<usize>) -> Result<f64, GateError> {
        let digits = &self.0[span.clone()];
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match hundredth(digits) {
            Some(q) if plain && q > 0.0 && q < 1.0 => Ok(q),
            Some(q) if plain && q >= 1.0 => {
                let help = "write a number below 100, or `max`; p999 is written p99.9";
                Err(self.error(span, format!("has no percentile `p{digits}`"), help))
            }
            _ => Err(self.error(span, format!("has no percentile `p{digits}`"), "write p50, p99 or p99.9")),
        }
    }

    fn status(&self, span: Range<usize>) -> Result<Subject, GateError> {
        let status = &self.0[span.clone()];
        if let [class @ b'1'..=b'5', b'x', b'x'] = status.as_bytes() {
            return Ok(Subject::Count(Counted::StatusClass(u16::from(class - b'0'))));
        }
        match status.parse::<u16>() {
            Ok(code @ 100..=599) => Ok(Subject::Count(Counted::Status(code))),
            _ => Err(self.error(span, format!("has no status `{status}`"), "write status_503 or status_5xx")),
        }
    }

    fn time(&self, span: Range<usize>) -> Result<u64, GateError> {
        if self.0[span.clone()].contains('%') {
            return Err(self.error(span, "compares a time with a share", "write a time, as in `250ms`"));
        }
        let time = parse_duration(&self.0[span.clone()])
            .map_err(|error| self.error(span.clone(), format!("has a limit that {}", error.problem), error.help))?;
        u64::try_from(time.as_nanos()).map_err(|_| self.error(span, "has a limit of centuries", "write a shorter time"))
    }

    fn limit(&self, of: Counted, span: Range<usize>) -> Result<Limit, GateError> {
        let limit = &self.0[span.clone()];
        let Some(percent) = limit.strip_suffix('%') else {
            return match limit.parse::<u64>() {
                Ok(_) if of == Counted::Achieved => {
                    let help = format!("write `{limit}%`: achieved is a share of what was scheduled");
                    Err(self.error(span, "has no share", help))
                }
                Ok(number) => Ok(Limit::Number(number)),
                Err(_) => Err(self.error(
                    span,
                    "has no limit to compare with",
                    "write a share, as in `1%`, or a number, as in `0`",
                )),
            };
        };
        let percent = percent.trim_end();
        let plain = percent.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match hundredth(percent) {
            Some(share) if plain && share <= 1.0 => Ok(Limit::Share(share)),
            _ => Err(self.error(span, "has no share", "write a number from 0 to 100 before the `%`")),
        }
    }
}

/// The nearest number to a hundredth of this. Dividing by 100 rounds twice, and 99.9 / 100 is more than 0.999: of a
/// thousand values that is the last instead of the one before.
fn hundredth(number: &str) -> Option<f64> {
    format!("{number}e-2").parse().ok()
}
