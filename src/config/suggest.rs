//! The nearest valid name to a misspelt one.

/// The name that `written` most likely stands for.
///
/// Optimal string alignment distance counts a swap of neighbours as one slip, as typists make it; Jaro-Winkler
/// settles ties in favour of a common beginning.
pub fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No name is this long; the bound keeps hostile input from costing quadratic time.
    if written.len() > 64 {
        return None;
    }
    let written = written.to_ascii_lowercase().replace('-', "_");
    let mut best: Option<(usize, f64, &str)> = None;
    for name in names {
        let distance = strsim::osa_distance(&written, &name.to_ascii_lowercase().replace('-', "_"));
        let likeness = strsim::jaro_winkler(&written, name);
        if distance > allowed(name) {
            continue;
        }
        if best.is_none_or(|(d, l, _)| distance < d || (distance == d && likeness > l)) {
            best = Some((distance, likeness, name));
        }
    }
    best.map(|(_, _, name)| name)
}

/// About one slip for each three letters, and always one.
fn allowed(name: &str) -> usize {
    (name.len() / 3).clamp(1, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["max_head", "max_headers", "deadline", "path", "on_client_gone"];

    #[test]
    fn slips_find_their_name() {
        let slips =
            [("dedline", "deadline"), ("paht", "path"), ("max-headers", "max_headers"), ("max_hed", "max_head")];

        for (written, meant) in slips {
            assert_eq!(nearest(written, NAMES), Some(meant), "{written}");
        }
    }

    #[test]
    fn a_different_word_suggests_nothing() {
        assert_eq!(nearest("colour", NAMES), None);
    }
}
