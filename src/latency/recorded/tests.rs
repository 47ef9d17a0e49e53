//! Each format read back, and what its mistakes say.

use hdrhistogram::serialization::{Serializer, V2DeflateSerializer, V2Serializer};
use proptest::prelude::*;

use super::*;

fn close(value: f64, expected: f64) -> bool {
    (value - expected).abs() <= expected.abs() * 1e-9
}

#[track_caller]
fn mistake<T: fmt::Debug>(result: Result<T, Problem>) -> String {
    result.expect_err("a mistake is found").to_string()
}

fn selection(metric: &str) -> Selection {
    Selection { metric: metric.to_owned(), labels: BTreeMap::new(), max: None, unit: Unit::S }
}

const EXPOSITION: &str = r#"
# HELP http_request_duration_seconds How long.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{route="a",le="0.1"} 50
http_request_duration_seconds_bucket{route="a",le="1"} 90
http_request_duration_seconds_bucket{route="a",le="+Inf"} 100 1700000000
http_request_duration_seconds_bucket{route="b \"q\" {}",le="0.1"} 0
http_request_duration_seconds_bucket{route="b \"q\" {}",le="1"} 100
http_request_duration_seconds_bucket{route="b \"q\" {}",le="+Inf"} 100
http_request_duration_seconds_sum{route="a"} 12
http_request_duration_seconds_count{route="a"} 100
"#;

#[test]
fn a_list_of_values_with_weights_and_comments() {
    let table = empirical("# measured\n10ms\n\n20ms 2\n1.5s, 1\n", None).unwrap();

    assert_eq!([0.0, 0.25, 0.74, 0.75].map(|p| table.quantile(p)), [10e6, 20e6, 20e6, 1.5e9]);
}

#[test]
fn bare_numbers_count_what_the_settings_say() {
    assert_eq!(empirical("12.5", Some(Unit::Ms)).unwrap().quantile(0.5), 12.5e6);
}

#[test]
fn mistakes_in_a_list_show_their_line() {
    assert!(mistake(empirical("10ms\n12", None)).starts_with("line 2: \"12\" has no unit; write it here (12ms)"));
    assert!(mistake(empirical("12 parsecs", None)).contains("has no unit"));
    assert!(mistake(empirical("12parsecs", None)).contains("unknown unit"));
    assert!(mistake(empirical("10ms -1", None)).contains("not a weight"));
    assert!(mistake(empirical("10ms 1 x", None)).contains("one word too many"));
    assert!(mistake(empirical("# nothing\n", None)).contains("one per line"));
}

#[test]
fn a_prometheus_histogram_by_its_labels() {
    let labels = BTreeMap::from([("route".to_owned(), "a".to_owned())]);
    let only_a = Selection { labels, max: Some(Duration::from_secs(10)), ..selection("http_request_duration_seconds") };

    let table = prometheus(EXPOSITION, &only_a).unwrap().into_table(None, &only_a).unwrap();

    assert!(close(table.quantile(0.25), 0.05e9), "evenly in the first bucket");
    assert!(close(table.quantile(0.7), 0.1e9 * 10.0_f64.sqrt()), "on a logarithmic scale in the others");
    assert!(close(table.quantile(0.95), 1e9 * 10.0_f64.sqrt()), "and in the tail");
    assert!(close(table.quantile(1.0), 10e9));
}

#[test]
fn series_are_added_up() {
    let buckets = prometheus(EXPOSITION, &selection("http_request_duration_seconds_bucket")).unwrap();

    assert_eq!(buckets.counts, [(0.1, 50.0), (1.0, 190.0), (f64::INFINITY, 200.0)]);
}

#[test]
fn what_was_counted_before_can_be_left_out() {
    let quoted = BTreeMap::from([("route".to_owned(), "b \"q\" {}".to_owned())]);
    let quoted = Selection { labels: quoted, ..selection("http_request_duration_seconds") };
    let buckets = || prometheus(EXPOSITION, &quoted).unwrap();
    let earlier = Buckets { counts: vec![(0.1, 0.0), (1.0, 99.0), (f64::INFINITY, 99.0)] };

    assert!(buckets().into_table(Some(earlier), &quoted).is_ok());
    assert!(mistake(buckets().into_table(Some(buckets()), &quoted)).contains("after some requests"));
    let later = Buckets { counts: vec![(0.1, 1.0), (1.0, 99.0), (f64::INFINITY, 99.0)] };
    assert!(mistake(buckets().into_table(Some(later), &quoted)).contains("restarted"));
    let other = Buckets { counts: vec![(f64::INFINITY, 0.0)] };
    assert!(mistake(buckets().into_table(Some(other), &quoted)).contains("not those of the file in `since`"));
}

#[test]
fn mistakes_in_an_exposition_say_what_to_write() {
    let wanted = selection("http_request_duration_seconds");
    let all = prometheus(EXPOSITION, &wanted).unwrap();
    assert!(
        mistake(all.into_table(None, &wanted)).contains("10 values lie beyond the largest bucket, which ends at 1s")
    );

    let misspelt = mistake(prometheus(EXPOSITION, &selection("http_requests_duration_seconds")));
    assert!(misspelt.contains("there is `http_request_duration_seconds`"), "{misspelt}");
    assert!(mistake(prometheus("", &selection("a"))).contains("no line begins with a_bucket{"));
    assert!(mistake(prometheus("a_bucket{le=\"1\"} 1", &selection("a"))).contains("+Inf"));
    assert!(mistake(prometheus("\na_bucket{x=\"1\"} 1", &selection("a"))).starts_with("line 2: no bound"));
    assert!(mistake(prometheus("a_bucket{le=\"1\"} x", &selection("a"))).contains("not a sample"));
    assert!(mistake(prometheus("a_bucket{le=\"1", &selection("a"))).contains("not a sample"));
    let falling = "a_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1";
    assert!(mistake(prometheus(falling, &selection("a"))).contains("not cumulative"));
}

#[test]
fn a_percentile_table() {
    let text = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n\
        10.000 0.000000000000 1 1.00\n20.000 0.500000000000 50 2.00\n40.000 1.000000000000 100 inf\n\
        #[Mean    =       20.0, StdDeviation   =        1.0]\n#[Buckets =           27, SubBuckets     =         2048]\n";

    let table = hdr(text, Unit::Ms).unwrap();

    assert!(close(table.quantile(0.0), 10e6));
    assert!(close(table.quantile(0.5), 20e6));
    assert!(close(table.quantile(0.75), 20e6 * 2.0_f64.sqrt()));
    assert!(close(table.quantile(1.0), 40e6));
}

#[test]
fn mistakes_in_a_percentile_table_show_their_line() {
    let head = "Value Percentile TotalCount 1/(1-Percentile)\n";
    assert!(mistake(hdr(&format!("{head}1.0 x"), Unit::Ms)).starts_with("line 2: not a line"));
    assert!(mistake(hdr(&format!("{head}2 0.5 1 2\n1 1.0 2 inf"), Unit::Ms)).starts_with("line 3: values and"));
    assert!(mistake(hdr(&format!("{head}2 0.5 1 2"), Unit::Ms)).contains("ends before"));
}

fn logged(values: &[u64], serializer: &mut impl Serializer) -> String {
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    for value in values {
        histogram.record(*value).unwrap();
    }
    let mut bytes = Vec::new();
    serializer.serialize(&histogram, &mut bytes).unwrap_or_else(|_| panic!("it can be written"));
    STANDARD.encode(bytes)
}

#[test]
fn the_histograms_of_a_log_are_added_up() {
    let text = format!(
        "#[Histogram log format version 1.3]\n\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\
         \"Interval_Compressed_Histogram\"\n0.0,1.0,0.1,{}\nTag=a,1.0,1.0,9.9,{}\n",
        logged(&[100, 100], &mut V2DeflateSerializer::new()),
        logged(&[1_000_000], &mut V2Serializer::new()),
    );

    let table = hdr(&text, Unit::Us).unwrap();

    assert_eq!(table.quantile(0.5), 100e3);
    assert!((table.quantile(0.9) / 1e9 - 1.0).abs() < 0.001, "to three digits");
}

#[test]
fn mistakes_in_a_log_show_their_line() {
    assert!(mistake(hdr("\n{}", Unit::Ms)).starts_with("line 2: neither a percentile table"));
    assert!(mistake(hdr("0,1,2,***", Unit::Ms)).contains("not Base64"));
    assert!(mistake(hdr("0,1,2,AAAA", Unit::Ms)).contains("not a histogram"));
    assert!(mistake(hdr("", Unit::Ms)).contains("no value"));
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in "[ -~\n]{0,200}") {
        let _ = empirical(&text, Some(Unit::Ms));
        let _ = hdr(&text, Unit::Ms);
        let _ = prometheus(&format!("a_bucket{{{text}"), &selection("a"));
    }

    #[test]
    fn a_written_list_is_read_back(mut values in proptest::collection::vec(0_u32..1_000_000, 1..50)) {
        let text: String = values.iter().map(|value| format!("{value}us\n")).collect();

        let table = empirical(&text, None).unwrap();

        values.sort_unstable();
        let count = values.len() as f64;
        for (index, value) in values.iter().enumerate() {
            prop_assert_eq!(table.quantile((index as f64 + 0.5) / count), f64::from(*value) * 1e3);
        }
    }
}
