//! Tests of the record format. What is built from it is tested where its tables are.
#![allow(clippy::unwrap_used)]
use super::*;

const NAME_BYTES_MAX: usize = 4;

#[derive(Clone, Debug, Default, PartialEq)]
struct Sample {
    id: u64,
    name: String,
    told: String,
    pid: Option<i32>,
    tags: BTreeMap<u32, Vec<u8>>,
    flag: bool,
    kinds: Vec<Kind>,
}

record! {
    Sample {
        1 id;
        2 name [max NAME_BYTES_MAX];
        3 told [cut NAME_BYTES_MAX] = String::new();
        4 pid;
        5 tags;
        6 flag = true;
        7 kinds;
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    None,
    Number { value: i32 },
}

variants! { Kind { 0 None {} 1 Number { 1 value; } } }

fn sample() -> Sample {
    Sample {
        id: u64::MAX,
        name: "n".into(),
        told: "é".into(),
        pid: Some(-7),
        tags: BTreeMap::from([(0, vec![]), (300, vec![0, 255])]),
        flag: false,
        kinds: vec![Kind::None, Kind::Number { value: i32::MIN }],
    }
}

#[test]
fn a_record_comes_back_as_it_was() {
    for sample in [sample(), Sample::default()] {
        assert_eq!(decode(&encode(&sample).unwrap()), Ok(sample.clone()));
        assert_eq!(from_document(&to_document(&sample).unwrap()), Ok(sample));
    }
    for number in [0, 1, 127, 128, 255, 256, u64::from(u32::MAX), u64::MAX] {
        assert_eq!(decode(&encode(&number).unwrap()), Ok(number));
    }
    for number in [0, 1, -1, 63, -64, i32::MAX, i32::MIN] {
        assert_eq!(decode(&encode(&number).unwrap()), Ok(number));
    }
}

#[test]
fn absent_fields_have_their_defaults_and_what_has_none_is_missing() {
    let expected = Sample { name: "n".into(), flag: true, ..Sample::default() };
    assert_eq!(decode(&[1, 0, 2, 1, b'n']), Ok(expected));
    assert_eq!(decode::<Sample>(&[1, 0]), Err(RecordError::Missing("name")));
    assert_eq!(decode::<Sample>(&[1, 3, 0]), Err(RecordError::Short("last field")));
    assert_eq!(decode::<Sample>(&[1, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1]), Err(RecordError::Bad("id")));
    assert_eq!(decode::<Sample>(&[6, 1, 2]), Err(RecordError::Bad("flag")));
}

#[test]
fn a_kind_that_is_not_known_is_left_out_of_a_list_and_an_error_elsewhere() {
    let list = [2, 77, 1, 1, 0];
    let record = [&[1, 0, 2, 0, 7, 5][..], &list].concat();
    assert_eq!(decode::<Sample>(&record).unwrap().kinds, [Kind::None]);
    assert_eq!(decode::<Kind>(&[77]), Err(RecordError::Unknown(77)));
    assert_eq!(decode::<Kind>(&[]), Err(RecordError::Short("kind")));
}

#[test]
fn a_bound_is_an_error_or_a_cut_at_a_characters_end() {
    let long = Sample { name: "12345".into(), ..sample() };
    assert!(matches!(encode(&long), Err(RecordError::TooLong { field: "name", is: 5, max: 4 })));
    let told = Sample { told: "abcé".into(), ..sample() };
    assert_eq!(decode::<Sample>(&encode(&told).unwrap()).unwrap().told, "abc");
    let fits = Sample { told: "abcd".into(), ..sample() };
    assert_eq!(decode(&encode(&fits).unwrap()), Ok(fits));
    assert!(decode::<Sample>(&[3, 5, b'a', b'b', b'c', b'd', b'e']).is_err());
}
