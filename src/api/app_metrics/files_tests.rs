//! Files as prometheus_client writes them, and others.
#![allow(clippy::unwrap_used)]
use super::*;
use std::collections::BTreeSet;
use std::process;

/// A file with these keys and values, each set at its place in the list (in seconds).
fn file(entries: &[(&str, f64)], value_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    for (n, (key, value)) in entries.iter().enumerate() {
        bytes.extend((key.len() as i32).to_ne_bytes());
        bytes.extend(key.as_bytes());
        bytes.extend(vec![b' '; 8 - (key.len() + 4) % 8]);
        bytes.extend(value.to_ne_bytes());
        if value_bytes == 16 {
            bytes.extend((n as f64).to_ne_bytes());
        }
    }
    let used = bytes.len() as i32;
    bytes[..4].copy_from_slice(&used.to_ne_bytes());
    bytes
}

const REQUESTS: &str = r#"["http_requests", "http_requests_total", {"method": "GET"}, "Requests."]"#;

/// Name, part and value of everything in a file.
fn read_all(name: &str, bytes: &[u8]) -> Vec<(String, Part, f64)> {
    let parsed = parse(name, bytes).unwrap();
    let families = parsed.families.iter();
    families
        .flat_map(|(name, family)| {
            family.series.iter().map(|(series, all)| (name.clone(), series.part, all.value(family.combine)))
        })
        .collect()
}

#[test]
fn counters_and_gauges_are_read_in_both_layouts() {
    for value_bytes in [8, 16] {
        let bytes = file(&[(REQUESTS, 3.0), (&REQUESTS.replace("GET", "POST"), 4.0)], value_bytes);
        let found = read_all("counter_7.db", &bytes);
        let of = |value| ("http_requests".to_owned(), Part::Value, value);
        assert_eq!(found, [of(3.0), of(4.0)], "{value_bytes}");
    }
    let without_help = file(&[(r#"["a", "a", {}]"#, 2.0)], 8);
    let parsed = parse("gauge_all_7.db", &without_help).unwrap();
    let (series, _) = parsed.families["a"].series.first_key_value().unwrap();
    assert_eq!(series.labels, [("pid".to_owned(), "7".to_owned())]);
    assert!(parse("gauge_livemax_7.db", &without_help).unwrap().families["a"].combine == Combine::Max);
}

#[test]
fn buckets_of_a_histogram_are_accumulated() {
    let bucket = |bound: &str| format!(r#"["took", "took_bucket", {{"le": "{bound}", "path": "/"}}, ""]"#);
    let (first, second, last) = (bucket("0.5"), bucket("10.0"), bucket("+Inf"));
    let sum = r#"["took", "took_sum", {"path": "/"}, ""]"#;
    let found = read_all("histogram_7.db", &file(&[(sum, 12.5), (&last, 1.0), (&second, 2.0), (&first, 4.0)], 16));
    let parts: Vec<(Part, f64)> = found.into_iter().map(|(_, part, value)| (part, value)).collect();
    let bound = |text| Part::Bucket(Bound::parse(text).unwrap());
    assert_eq!(
        parts,
        [(bound("0.5"), 4.0), (bound("10"), 6.0), (bound("+Inf"), 7.0), (Part::Sum, 12.5), (Part::Count, 7.0)]
    );
}

#[test]
fn a_file_that_is_damaged_costs_nothing_else() {
    let whole = file(&[(REQUESTS, 3.0)], 16);
    for cut in 9..whole.len() {
        let parsed = parse("counter_7.db", &whole[..cut]).unwrap();
        assert!(parsed.families.len() <= 1 && parsed.left_out <= 1);
    }
    for at in 8..whole.len() {
        for byte in [0, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            parse("counter_7.db", &damaged).unwrap();
        }
    }
    let keys = ["[", "[7]", r#"["a b", "a b", {}, ""]"#, r#"["a", "b", {}, ""]"#, r#"["a", "a", {"x": 7}, ""]"#];
    for key in keys {
        assert_eq!(parse("counter_7.db", &file(&[(key, 1.0)], 16)).unwrap().left_out, 1, "{key}");
    }
    for other in ["counter.db", "gauge_7.db", "other_7.db", "counter_7", ""] {
        assert!(parse(other, &whole).is_none(), "{other}");
    }
}

struct Base(PathBuf);

impl Base {
    fn new(name: &str) -> Base {
        let path = std::env::temp_dir().join(format!("clusterd-files-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("m-1")).unwrap();
        Base(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join("m-1").join(name), bytes).unwrap();
    }

    fn names(&self) -> BTreeSet<String> {
        let names = fs::read_dir(self.0.join("m-1")).into_iter().flatten();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn read(&self, living: &[u32]) -> Read {
        let living = living.iter().copied().collect();
        read(&Folder { place: Place::Made { base: self.0.clone(), prefix: "m-".to_owned(), living }, who: None })
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// No process has this pid (PID_MAX_LIMIT).
const ENDED: u32 = 4_194_305;

#[test]
#[cfg_attr(miri, ignore = "miri does not know openat")]
fn live_gauges_of_ended_processes_go_and_their_counters_stay() {
    let base = Base::new("live");
    let me = process::id();
    let gauge = file(&[(r#"["g", "g", {}, ""]"#, 1.0)], 16);
    for pid in [me, ENDED] {
        base.write(&format!("gauge_livesum_{pid}.db"), &gauge);
        base.write(&format!("gauge_max_{pid}.db"), &gauge);
        base.write(&format!("counter_{pid}.db"), &file(&[(REQUESTS, 1.0)], 16));
    }
    // Files are larger than what is used of them, and what is something else is left alone.
    base.write(&format!("counter_{}.db", ENDED + 1), &[file(&[(REQUESTS, 1.0)], 16), vec![0; 1 << 16]].concat());
    base.write("notes.txt", b"x");
    fs::create_dir(base.0.join("m-1/counter_1.db")).unwrap();
    let Read { parsed, missing } = base.read(&[1]);
    assert_eq!((parsed.len(), missing), (6, 0));
    let left = base.names();
    assert!(!left.contains(&format!("gauge_livesum_{ENDED}.db")) && left.len() == 8, "{left:?}");
    let typed = read(&Folder { place: Place::Typed(base.0.join("missing")), who: None });
    assert_eq!((typed.parsed.len(), typed.missing), (0, 1));
}

#[test]
#[cfg_attr(miri, ignore = "miri does not know openat")]
fn too_many_files_of_ended_processes_are_read_once_more_and_removed() {
    let base = Base::new("many");
    let count = APP_METRICS_FILES_KEPT_MAX + 9;
    for n in 0..count {
        base.write(&format!("counter_{}.db", ENDED as usize + n), &file(&[(REQUESTS, 1.0)], 16));
    }
    assert_eq!(base.read(&[1]).parsed.len(), count);
    assert_eq!(base.names().len(), APP_METRICS_FILES_KEPT_MAX);
    assert_eq!(base.read(&[1]).parsed.len(), APP_METRICS_FILES_KEPT_MAX);
    // The last worker of the generation has ended.
    assert_eq!(base.read(&[2]).missing, 1, "that one has no folder");
    assert!(!base.0.join("m-1").exists());
}
