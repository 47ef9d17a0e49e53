//! Chance that can be repeated: each decision is a function of a seed, a name, a number and what is decided.
//!
//! Pure: nothing depends on the order in which threads ask. Two runs of the same seed decide the same, which makes them
//! comparable (common random numbers), and one decision can be explained afterwards.

/// A number in `[0, 1)` for one decision about the thing with this number. Each `stream` is a decision of its own, so
/// that an added decision leaves the others as they were.
pub fn unit(seed: u64, name: &str, number: u64, stream: u64) -> f64 {
    let word = [fnv1a(FNV_OFFSET, name.as_bytes()), number, stream];
    unit_interval(word.into_iter().fold(split_mix(seed), |state, part| split_mix(state ^ part)))
}

/// The first choice whose cumulated probability lies above `quantile`.
pub fn choose<T>(quantile: f64, choices: impl Iterator<Item = (T, f64)>) -> Option<T> {
    let mut cumulated = 0.0;
    for (choice, probability) in choices {
        cumulated += probability;
        if quantile < cumulated {
            return Some(choice);
        }
    }
    None
}

/// One step of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014): a
/// bijection whose output passes BigCrush on a counter, in a few multiplications.
fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Where FNV-1a begins.
pub const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;

/// FNV-1a, 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv): short, and stable over processes and versions, unlike the
/// standard library's hasher. Goes on from the hash of what came before, which is [`FNV_OFFSET`] at the beginning.
pub fn fnv1a(before: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(before, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// The upper 53 bits as a number in `[0, 1)`, each of them equally likely.
fn unit_interval(word: u64) -> f64 {
    (word >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_numbers() {
        // The first output of SplitMix64 for seed 0, as in the reference implementation (Vigna, splitmix64.c).
        assert_eq!(split_mix(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(fnv1a(FNV_OFFSET, b""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv1a(FNV_OFFSET, b"a"), 0xAF63_DC4C_8601_EC8C);
        assert_eq!(fnv1a(FNV_OFFSET, b"foobar"), 0x8594_4171_F739_67E8);
    }

    #[test]
    fn a_choice_comes_as_often_as_its_probability_says() {
        let choices = || [("a", 0.25), ("b", 0.5)].into_iter();
        let count = |wanted| (0..100_000).filter(|n| choose(unit(9, "x", *n, 1), choices()) == wanted).count();

        assert!(count(Some("a")).abs_diff(25_000) < 1_000);
        assert!(count(Some("b")).abs_diff(50_000) < 1_000);
        assert!(count(None).abs_diff(25_000) < 1_000);
    }
}
