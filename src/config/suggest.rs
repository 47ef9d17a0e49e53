//! The nearest valid name to a misspelt one.

/// The name that `written` most likely stands for.
pub fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    all_nearest(written, names).first().copied()
}

/// The same, with every name that is just as near: `ipv_prefix` may be meant for either family.
///
/// Optimal string alignment distance counts a swap of neighbours as one slip, as typists make it; Jaro-Winkler
/// settles ties in favour of a common beginning.
pub fn all_nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    // No name is this long; the bound keeps hostile input from costing quadratic time.
    if written.len() > 64 {
        return Vec::new();
    }
    let written = plain(written);
    let mut near: Vec<(usize, f64, &str)> = names
        .into_iter()
        .map(|name| (strsim::osa_distance(&written, &plain(name)), strsim::jaro_winkler(&written, &plain(name)), name))
        .filter(|(distance, _, name)| *distance <= allowed(name))
        .collect();
    near.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let best = near.first().map(|(distance, likeness, _)| (*distance, *likeness));
    near.retain(|(distance, likeness, _)| Some((*distance, *likeness)) == best);
    near.into_iter().map(|(_, _, name)| name).collect()
}

/// Case and the kind of dash are not what makes a name.
fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
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
    fn names_that_are_equally_near_are_all_suggested() {
        let names = ["ipv4_prefix", "ipv6_prefix"];

        assert_eq!(all_nearest("ipv_prefix", names), names);
        assert_eq!(all_nearest("ipv6_prefx", names), ["ipv6_prefix"]);
    }

    #[test]
    fn a_different_word_suggests_nothing() {
        assert_eq!(nearest("colour", NAMES), None);
    }
}
