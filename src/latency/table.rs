//! A distribution given by what was measured: probabilities and the latencies between which they lie.

/// A quantile function in pieces.
///
/// Within a piece the latencies are spread evenly on a logarithmic scale, as a recorded latency is more likely near the
/// lower end of a wide bucket than near its upper one; evenly on the plain scale in a piece that begins at zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// In ascending order of all fields; the last `up_to` is 1.
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece {
    /// The probability of this piece and of those before it.
    up_to: f64,
    /// Nanoseconds.
    low: f64,
    high: f64,
}

/// So much weight lies between two latencies (or on one, if they are equal), in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    pub weight: f64,
    pub low: f64,
    pub high: f64,
}

impl Table {
    /// `None` if there is no weight at all. The bins may come in any order, but do not overlap.
    pub fn new(mut bins: Vec<Bin>) -> Option<Self> {
        bins.retain(|bin| bin.weight > 0.0);
        bins.sort_by(|a, b| a.low.total_cmp(&b.low).then(a.high.total_cmp(&b.high)));
        let total: f64 = bins.iter().map(|bin| bin.weight).sum();
        let mut sum = 0.0;
        let mut pieces: Vec<Piece> = Vec::with_capacity(bins.len());
        for Bin { weight, low, high } in bins {
            sum += weight;
            let piece = Piece { up_to: sum / total, low, high };
            match pieces.last_mut() {
                // The same value again, as it is usual in a list of values.
                Some(last) if low == high && (last.low, last.high) == (low, high) => *last = piece,
                _ => pieces.push(piece),
            }
        }
        pieces.last_mut()?.up_to = 1.0;
        Some(Self { pieces })
    }

    /// Nanoseconds at a probability from 0 to 1.
    pub fn quantile(&self, probability: f64) -> f64 {
        let index = self.pieces.partition_point(|piece| piece.up_to <= probability).min(self.pieces.len() - 1);
        let Piece { up_to, low, high } = self.pieces[index];
        let before = if index == 0 { 0.0 } else { self.pieces[index - 1].up_to };
        let part = ((probability - before) / (up_to - before)).clamp(0.0, 1.0);
        if low == high {
            low
        } else if low > 0.0 {
            (low * (high / low).powf(part)).min(high)
        } else {
            high * part
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bin(weight: f64, low: f64, high: f64) -> Bin {
        Bin { weight, low, high }
    }

    #[test]
    fn values_come_as_often_as_they_weigh() {
        let table = Table::new(vec![bin(1.0, 30.0, 30.0), bin(2.0, 10.0, 10.0), bin(1.0, 10.0, 10.0)]).unwrap();

        assert_eq!([0.0, 0.5, 0.749].map(|p| table.quantile(p)), [10.0; 3]);
        assert_eq!([0.75, 0.9, 1.0].map(|p| table.quantile(p)), [30.0; 3]);
    }

    #[test]
    fn a_bucket_is_filled_on_a_logarithmic_scale_and_the_first_evenly() {
        let table = Table::new(vec![bin(1.0, 0.0, 10.0), bin(1.0, 10.0, 1000.0)]).unwrap();

        assert!((table.quantile(0.25) - 5.0).abs() < 1e-9);
        assert!((table.quantile(0.75) - 100.0).abs() < 1e-9);
        assert!((table.quantile(1.0) - 1000.0).abs() < 1e-9);
    }

    #[test]
    fn without_weight_there_is_no_distribution() {
        assert_eq!(Table::new(Vec::new()), None);
        assert_eq!(Table::new(vec![bin(0.0, 1.0, 2.0)]), None);
    }
}
