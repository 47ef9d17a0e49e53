use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::telemetry::Telemetry;
use crate::telemetry::test_support::record;

/// A decoded field: number and value.
#[derive(Debug, Clone, PartialEq)]
enum Field<'a> {
    Varint(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

fn read_varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first().expect("a whole varint");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

fn read_bytes<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let length = read_varint(bytes) as usize;
    let (value, rest) = bytes.split_at(length);
    *bytes = rest;
    value
}

fn decode(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = read_varint(&mut bytes);
        let value = match tag & 7 {
            VARINT => Field::Varint(read_varint(&mut bytes)),
            FIXED64 => {
                let (value, rest) = bytes.split_first_chunk::<8>().unwrap();
                bytes = rest;
                Field::Double(f64::from_le_bytes(*value))
            }
            LENGTH_DELIMITED => Field::Bytes(read_bytes(&mut bytes)),
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn all<'a>(fields: &[(u64, Field<'a>)], number: u64) -> Vec<Field<'a>> {
    fields.iter().filter(|field| field.0 == number).map(|field| field.1.clone()).collect()
}

fn bytes<'a>(fields: &[(u64, Field<'a>)], number: u64) -> &'a [u8] {
    match all(fields, number).as_slice() {
        [Field::Bytes(bytes)] => bytes,
        other => panic!("field {number}: {other:?}"),
    }
}

fn unsigned(fields: &[(u64, Field<'_>)], number: u64) -> u64 {
    match all(fields, number).as_slice() {
        [] => 0,
        [Field::Varint(value)] => *value,
        other => panic!("field {number}: {other:?}"),
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The families of a body by name.
fn families(mut body: &[u8]) -> std::collections::BTreeMap<String, Vec<(u64, Field<'_>)>> {
    let mut families = std::collections::BTreeMap::new();
    while !body.is_empty() {
        let family = decode(read_bytes(&mut body));
        let name = String::from_utf8(bytes(&family, 1).to_vec()).unwrap();
        assert!(families.insert(name, family).is_none());
    }
    families
}

/// (prometheus index, count) of the native buckets of a decoded histogram.
fn native_buckets(histogram: &[(u64, Field<'_>)]) -> Vec<(i64, i64)> {
    let mut deltas = all(histogram, 13).into_iter().map(|field| match field {
        Field::Varint(value) => zigzag(value),
        other => panic!("{other:?}"),
    });
    let (mut index, mut count, mut buckets) = (0, 0, Vec::new());
    for span in all(histogram, 12) {
        let Field::Bytes(span) = span else { panic!("a span is a message") };
        let span = decode(span);
        index += zigzag(unsigned(&span, 1));
        for _ in 0..unsigned(&span, 2) {
            count += deltas.next().expect("a delta for each bucket");
            buckets.push((index, count));
            index += 1;
        }
    }
    assert_eq!(deltas.next(), None, "no delta without a bucket");
    buckets
}

fn histogram_of<'a>(
    families: &std::collections::BTreeMap<String, Vec<(u64, Field<'a>)>>,
    name: &str,
) -> Vec<(u64, Field<'a>)> {
    let family = &families[name];
    assert_eq!(unsigned(family, 3), 4, "type histogram");
    let Some(Field::Bytes(last)) = all(family, 4).pop() else { panic!("a series") };
    decode(bytes(&decode(last), 7))
}

#[test]
fn a_histogram_has_native_and_classic_buckets_and_exemplars() {
    let telemetry = Telemetry::quiet();
    let mut record = record(&telemetry, "users");
    for millis in [0, 1000, 1001, 1250, 4000] {
        record.timings.total = Duration::from_millis(millis);
        telemetry.finish(&record);
    }

    let body = encode(&telemetry.snapshot(Instant::now()));

    let families = families(&body);
    let histogram = histogram_of(&families, "forebay_request_duration_seconds");
    assert_eq!(unsigned(&histogram, 1), 5);
    assert_eq!(all(&histogram, 2), [Field::Double(7.251)]);
    assert_eq!(zigzag(unsigned(&histogram, 5)), 3);
    assert_eq!(unsigned(&histogram, 7), 1, "zero bucket");
    // 1.0 s is the upper end of bucket 0; 1.001 lies in bucket 1, 1.25 in 3, 4.0 is the end of 16.
    assert_eq!(native_buckets(&histogram), [(0, 1), (1, 1), (3, 1), (16, 1)]);
    assert_eq!(all(&histogram, 3).len(), crate::telemetry::DEFAULT_BUCKETS.len() + 1);
    let Some(Field::Bytes(infinite)) = all(&histogram, 3).pop() else { panic!("a bucket") };
    let infinite = decode(infinite);
    assert_eq!((unsigned(&infinite, 1), all(&infinite, 2)), (5, vec![Field::Double(f64::INFINITY)]));
    assert_eq!(all(&histogram, 16).len(), 4, "one exemplar for each classic bucket hit");
}

#[test]
fn an_empty_histogram_is_still_a_native_one() {
    let body = encode(&Telemetry::quiet().snapshot(Instant::now()));

    let histogram = histogram_of(&families(&body), "forebay_request_overhead_seconds");

    assert_eq!(all(&histogram, 12), [Field::Bytes(&[])]);
    assert_eq!(native_buckets(&histogram), []);
}

#[test]
fn counters_and_gauges_carry_their_labels() {
    let telemetry = Telemetry::quiet();
    telemetry.limiter("global/0").rejected.inc_by(3);

    let body = encode(&telemetry.snapshot(Instant::now()));

    let families = families(&body);
    let family = &families["forebay_rate_limit_decisions_total"];
    assert_eq!(unsigned(family, 3), 0, "type counter");
    let series = all(family, 4).into_iter().map(|series| match series {
        Field::Bytes(series) => decode(series),
        other => panic!("{other:?}"),
    });
    let rejected = series
        .into_iter()
        .find(|series| {
            all(series, 1).into_iter().any(|label| match label {
                Field::Bytes(label) => bytes(&decode(label), 2) == b"rejected",
                _ => false,
            })
        })
        .unwrap();
    assert_eq!(all(&decode(bytes(&rejected, 3)), 1), [Field::Double(3.0)]);
    assert_eq!(unsigned(&families["forebay_rate_limit_keys"], 3), 1, "type gauge");
}

proptest! {
    #[test]
    fn spans_and_deltas_give_the_buckets_back(
        buckets in prop::collection::btree_map(-200i32..200, 1u64..1_000_000, 0..60),
    ) {
        let native = NativeBuckets::new(buckets.iter().map(|(index, count)| (*index, *count)));

        let mut message = Message::default();
        for (offset, length) in &native.spans {
            let mut span = Message::default();
            span.signed(1, i64::from(*offset));
            span.unsigned(2, u64::from(*length));
            message.message(12, &span);
        }
        native.deltas.iter().for_each(|delta| message.signed(13, *delta));
        let expected: Vec<(i64, i64)> = buckets.iter().map(|(index, count)| (i64::from(*index), *count as i64)).collect();
        prop_assert_eq!(native_buckets(&decode(&message.0)), expected);
    }
}
