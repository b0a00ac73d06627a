//! A strict parser of OpenMetrics text: whatever the specification forbids, as far as clusterd could write it, is an error
//! with its line.
use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

/// What one answer has.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    /// The type of each family.
    pub(crate) families: BTreeMap<String, String>,
    /// Every sample: name, labels, value.
    pub(crate) samples: Vec<(String, Labels, f64)>,
}

impl Exposition {
    /// The value of the only sample with this name that has these labels, if there is one.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |of: &Labels| labels.iter().all(|(label, value)| of.get(*label).is_some_and(|is| is == value));
        let mut found = self.samples.iter().filter(|(other, of, _)| other == name && has(of));
        let (_, _, value) = found.next()?;
        assert!(found.next().is_none(), "{name} {labels:?} has several samples");
        Some(*value)
    }

    /// All samples with this name that have these labels, added up.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |of: &Labels| labels.iter().all(|(label, value)| of.get(*label).is_some_and(|is| is == value));
        self.samples.iter().filter(|(other, of, _)| other == name && has(of)).map(|(_, _, value)| value).sum()
    }
}

/// Parses an answer.
pub(crate) fn parse(text: &str) -> Result<Exposition, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("the end is not \"# EOF\"")?;
    if !(body.is_empty() || body.ends_with('\n')) {
        return Err("the last line is not whole".to_owned());
    }
    let mut parser = Parser::default();
    for line in body.lines() {
        parser.line(line).map_err(|why| format!("{why}: {line}"))?;
    }
    parser.end_family().map_err(|why| format!("{why}: {}", parser.family))?;
    Ok(parser.found)
}

#[derive(Default)]
struct Parser {
    found: Exposition,
    family: String,
    kind: String,
    helped: bool,
    /// Samples of the family.
    first: usize,
    series: BTreeSet<(String, Labels)>,
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let Some(meta) = line.strip_prefix("# ") else { return self.sample(line) };
        let mut words = meta.splitn(3, ' ');
        let (word, name, rest) = (words.next(), words.next(), words.next());
        let (Some(word), Some(name), Some(rest)) = (word, name, rest.filter(|rest| !rest.is_empty())) else {
            return Err("a comment of another form".to_owned());
        };
        if name != self.family {
            self.begin_family(name)?;
        }
        if self.first != self.found.samples.len() {
            return Err("metadata behind samples".to_owned());
        }
        match word {
            "HELP" if !std::mem::replace(&mut self.helped, true) => Ok(()),
            "TYPE" if self.kind.is_empty() => {
                let ending = match rest {
                    "gauge" | "summary" | "unknown" => None,
                    "counter" => Some("_total"),
                    "histogram" => Some("_bucket"),
                    "info" => Some("_info"),
                    _ => return Err("an unknown type".to_owned()),
                };
                if ending.is_some_and(|ending| name.ends_with(ending)) {
                    return Err("not a name of a family of this type".to_owned());
                }
                self.kind = rest.to_owned();
                self.found.families.insert(name.to_owned(), rest.to_owned());
                Ok(())
            }
            "UNIT" if name.ends_with(&format!("_{rest}")) => Ok(()),
            "UNIT" => Err("the name does not end in its unit".to_owned()),
            _ => Err("metadata that is repeated, or unknown".to_owned()),
        }
    }

    fn begin_family(&mut self, name: &str) -> Result<(), String> {
        self.end_family()?;
        if self.found.families.contains_key(name) {
            return Err("a family that is interrupted by another one".to_owned());
        }
        if !is_name(name) {
            return Err("not a name of a family".to_owned());
        }
        self.family = name.to_owned();
        self.kind = String::new();
        self.helped = false;
        self.first = self.found.samples.len();
        Ok(())
    }

    /// The family is complete.
    fn end_family(&self) -> Result<(), String> {
        if self.family.is_empty() {
            return Ok(());
        }
        let samples = &self.found.samples[self.first..];
        if self.kind.is_empty() || !self.helped || samples.is_empty() {
            return Err("a family without type, help or samples".to_owned());
        }
        if self.kind == "histogram" { histograms(&self.family, samples) } else { Ok(()) }
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let end = line.find(['{', ' ']).ok_or("no value")?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Labels::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = read_labels(inside, &mut labels)?;
        }
        let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
        let value: f64 = value.parse().map_err(|_| "the value is not a number")?;
        let suffix = name.strip_prefix(&self.family).ok_or("a sample of another family")?;
        let allowed: &[&str] = match self.kind.as_str() {
            "gauge" | "unknown" => &[""],
            "summary" => &["_sum", "_count"],
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => return Err("a sample before its type".to_owned()),
        };
        if !allowed.contains(&suffix) {
            return Err(format!("a {} has no {suffix}", self.kind));
        }
        let in_range = value.is_finite()
            && (["gauge", "unknown"].contains(&self.kind.as_str()) || value >= 0.0)
            && (self.kind != "info" || value == 1.0);
        if !in_range {
            return Err("a value that this type cannot have".to_owned());
        }
        if !self.series.insert((name.to_owned(), labels.clone())) {
            return Err("a series that is there twice".to_owned());
        }
        self.found.samples.push((name.to_owned(), labels, value));
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Reads `a="b",c="d"}` and returns what follows.
fn read_labels<'a>(mut rest: &'a str, labels: &mut Labels) -> Result<&'a str, String> {
    loop {
        let (name, value) = rest.split_once("=\"").ok_or("a label without a value")?;
        if !is_name(name) {
            return Err("not a name of a label".to_owned());
        }
        let mut text = String::new();
        let mut chars = value.char_indices();
        let end = loop {
            match chars.next().ok_or("a label without an end")? {
                (at, '"') => break at,
                (_, '\\') => text.push(match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, c @ ('\\' | '"'))) => c,
                    _ => return Err("an unknown escape".to_owned()),
                }),
                (_, c) => text.push(c),
            }
        };
        if labels.insert(name.to_owned(), text).is_some() {
            return Err("a label that is there twice".to_owned());
        }
        rest = &value[end + 1..];
        match rest.split_at_checked(1) {
            Some((",", more)) => rest = more,
            Some(("}", more)) => return Ok(more),
            _ => return Err("no end of the labels".to_owned()),
        }
    }
}

/// Buckets (upper bound, count), sum and count of a histogram.
type Parts = (Vec<(f64, f64)>, Option<f64>, Option<f64>);

/// Buckets are cumulative, in order, and end with all.
fn histograms(family: &str, samples: &[(String, Labels, f64)]) -> Result<(), String> {
    let mut by_labels: BTreeMap<Labels, Parts> = BTreeMap::new();
    for (name, labels, value) in samples {
        let mut labels = labels.clone();
        let bound = labels.remove("le");
        let (buckets, sum, count) = by_labels.entry(labels).or_default();
        match (&name[family.len()..], bound) {
            ("_bucket", Some(bound)) => {
                let bound =
                    if bound == "+Inf" { f64::INFINITY } else { bound.parse().map_err(|_| "le is not a number")? };
                buckets.push((bound, *value));
            }
            ("_sum", None) => *sum = Some(*value),
            ("_count", None) => *count = Some(*value),
            _ => return Err("le is where it does not belong, or missing".to_owned()),
        }
    }
    for (buckets, sum, count) in by_labels.into_values() {
        let is_ordered = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let last = buckets.last().ok_or("a histogram without buckets")?;
        if !is_ordered || last.0 != f64::INFINITY || Some(last.1) != count || sum.is_none() {
            return Err("the buckets do not add up".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_parser_is_strict() {
        let family = |kind: &str, samples: &str| format!("# HELP a_b A.\n# TYPE a_b {kind}\n{samples}# EOF\n");
        for (kind, samples) in [
            ("gauge", "a_b -1.5\n"),
            ("gauge", "a_b{c=\"d\",e=\"\\\\ \\\" \\n\"} 1\na_b{c=\"x\",e=\"\"} 1\n"),
            ("counter", "a_b_total{c=\"d\"} 1\n"),
            ("info", "a_b_info{c=\"d\"} 1\n"),
            ("histogram", "a_b_sum 3.0\na_b_count 2\na_b_bucket{le=\"1.0\"} 1\na_b_bucket{le=\"+Inf\"} 2\n"),
        ] {
            let text = family(kind, samples);
            assert!(parse(&text).is_ok(), "{text} {:?}", parse(&text));
        }
        for (kind, samples) in [
            ("gauge", ""),
            ("gauge", "a_b 1"),
            ("gauge", "a_b NaN\n"),
            ("gauge", "a_b 1\na_b 2\n"),
            ("gauge", "a_c 1\n"),
            ("gauge", "a_b{c=\"d\"} 1 2\n"),
            ("gauge", "a_b{c=\"d} 1\n"),
            ("gauge", "a_b{c=\"\\x\"} 1\n"),
            ("gauge", "a_b{c=\"d\",c=\"e\"} 1\n"),
            ("gauge", "a_b{} 1\n"),
            ("gauge", "a_b 1\n# UNIT a_b b\n"),
            ("counter", "a_b 1\n"),
            ("counter", "a_b_total -1\n"),
            ("info", "a_b_info 2\n"),
            ("summary", "a_b 1\n"),
            ("histogram", "a_b_sum 3\na_b_count 2\na_b_bucket{le=\"1\"} 1\n"),
            ("histogram", "a_b_sum 3\na_b_count 1\na_b_bucket{le=\"1\"} 2\na_b_bucket{le=\"+Inf\"} 1\n"),
            ("histogram", "a_b_sum 3\na_b_count 2\na_b_bucket 2\n"),
        ] {
            let text = family(kind, samples);
            assert!(parse(&text).is_err(), "{text}");
        }
        let twice = "# HELP a A.\n# TYPE a gauge\na 1\n# HELP b B.\n# TYPE b gauge\nb 1\n# HELP a A.\n# TYPE a gauge\na 2\n# EOF\n";
        assert!(parse(twice).is_err());
        for text in
            ["", "a 1\n# EOF\n", "# EOF", "# TYPE a gauge\na 1\n# EOF\n", "# HELP a A.\na 1\n# EOF\n", "# a\n# EOF\n"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("# EOF\n").is_ok());
    }
}
