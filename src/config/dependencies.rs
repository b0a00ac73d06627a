//! `depends_on`: which apps of a file have to be ready before another one starts. Names are checked here; who waits for whom at a
//! moment is known to the master.
use super::name;
use super::problem::{At, Found};
use super::schema::keys::RawApp;

/// Reports names that no app of the file has, and apps that wait for themselves. `names`: those of `raws`.
pub(super) fn check(raws: &[RawApp], names: &[String], found: &mut Found) {
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    for (raw, own) in raws.iter().zip(names) {
        for wanted in typed(raw) {
            if wanted.value == *own {
                found.add(wanted.spot, format!("{own} cannot depend on itself"));
            } else if !names.contains(&wanted.value) {
                let hint = name::did_you_mean(&wanted.value, &known);
                let others = known.join(", ");
                let text = format!("depends_on: there is no app \"{}\": there is {others}{hint}", wanted.value);
                found.add(wanted.spot, text);
            }
        }
    }
    // Each circle once, at the first of its apps.
    let mut told = vec![false; names.len()];
    for first in 0..names.len() {
        if told[first] {
            continue;
        }
        if let Some(circle) = circle_from(first, raws, names) {
            circle.iter().for_each(|&index| told[index] = true);
            let mut words: Vec<&str> = circle.iter().map(|&index| known[index]).collect();
            words.push(known[first]);
            if let Some(wanted) = typed(&raws[first]).find(|wanted| wanted.value == words[1]) {
                found.add(wanted.spot, format!("depends_on leads back to where it began: {}", words.join(" -> ")));
            }
        }
    }
}

fn typed(raw: &RawApp) -> impl Iterator<Item = &At<String>> {
    raw.depends_on.iter().flat_map(|at| &at.value)
}

/// The apps on a way from this one back to it, where there is one of at least two.
fn circle_from(first: usize, raws: &[RawApp], names: &[String]) -> Option<Vec<usize>> {
    let next = |index: usize| {
        typed(&raws[index]).filter_map(|wanted| names.iter().position(|name| *name == wanted.value)).collect::<Vec<_>>()
    };
    let mut seen = vec![false; names.len()];
    let mut way = vec![first];
    let mut open = vec![next(first)];
    while let Some(level) = open.last_mut() {
        match level.pop() {
            None => {
                open.pop();
                way.pop();
            }
            Some(index) if index == first && way.len() > 1 => return Some(way),
            Some(index) if index == first || seen[index] => {}
            Some(index) => {
                seen[index] = true;
                way.push(index);
                open.push(next(index));
            }
        }
    }
    None
}
