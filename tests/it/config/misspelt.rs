//! Every key of the file, misspelt by one letter in every way, gets the right suggestion.

use forebay::config::describe::Table;
use forebay::config::elements::visit_tables;
use forebay::config::parse;
use forebay::config::suggest::all_nearest;

/// Every text that one slip makes of a name: a letter left out, doubled, wrong, or swapped with its neighbour.
fn slips(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.chars().collect();
    let mut slips = Vec::new();
    for at in 0..letters.len() {
        let (before, rest) = letters.split_at(at);
        let join = |middle: &[char], after: &[char]| before.iter().chain(middle).chain(after).collect::<String>();
        slips.push(join(&[], &rest[1..]));
        slips.push(join(&[rest[0], rest[0]], &rest[1..]));
        slips.push(join(&['x'], &rest[1..]));
        slips.push(join(&['q', rest[0]], &rest[1..]));
        if let [first, second, after @ ..] = rest {
            slips.push(join(&[*second, *first], after));
        }
    }
    slips.retain(|slip| slip != name);
    slips
}

#[test]
fn every_key_misspelt_by_one_letter_is_suggested() {
    let mut wrong = Vec::new();
    let mut count = 0;
    visit_tables(&mut |place, table: &Table| {
        for key in &table.keys {
            for slip in slips(key.name).into_iter().filter(|slip| table.key(slip).is_none() && !slip.is_empty()) {
                count += 1;
                let suggested = all_nearest(&slip, table.keys.iter().map(|key| key.name));
                // `ipv_prefix` may be meant for either family, so both are named; nothing else is that ambiguous.
                let most = if key.name.starts_with("ipv") { 2 } else { 1 };
                if !suggested.contains(&key.name) || suggested.len() > most {
                    wrong.push(format!("{place}: {slip} for {} suggests {suggested:?}", key.name));
                }
            }
        }
    });

    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 3_000, "{count}");
}

/// A file with one key written in its table, by the place that `visit_tables` gives.
fn file_with(place: &str, key: &str) -> Option<String> {
    let (header, inner) = place.strip_prefix('[')?.split_once(']')?;
    let header = header.replace("NAME", "a");
    let path = match inner.trim() {
        "" => header,
        inner => format!("{header}.{inner}"),
    };
    Some(format!("[{path}]\n{key} = 1\n"))
}

#[test]
fn the_report_names_the_right_key_in_every_table() {
    let mut checked = 0;
    visit_tables(&mut |place, table| {
        let place = if place == "[listener]" { "[listener.NAME]" } else { place };
        // The two keys of a secret's source exclude each other; their table has its own message.
        for key in table.keys.iter().filter(|key| !["env", "file"].contains(&key.name)) {
            let slip = format!("{}q", key.name);
            let Some(text) = file_with(place, &slip) else { continue };
            let report = parse("f", &text, &|_| None).expect_err(&text).to_string();
            assert!(report.contains(&format!("did you mean `{}`?", key.name)), "{text}\n{report}");
            checked += 1;
        }
    });

    assert!(checked > 100, "{checked}");
}
