//! The pages of the project, and what leads from one to another.
use crate::markdown::Page;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every page by its path in the project: those for users first of all, and what they lead to.
pub(crate) fn pages() -> BTreeMap<String, Page> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
            // What was built or installed, and what belongs to nobody but an editor or git.
            if entry.is_dir() && !name.starts_with('.') && !["target", "node_modules"].contains(&name.as_str()) {
                folders.push(entry);
            } else if name.ends_with(".md") {
                let path = entry.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                let page = Page::read(&text(&path));
                found.insert(path, page);
            }
        }
    }
    assert!(found.len() > 20, "{:?}", found.keys());
    found
}

/// The path in the project that a link of this page means.
fn meant(page: &str, link: &str) -> Option<String> {
    let mut path = PathBuf::from(page);
    path.pop();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir if path.pop() => (),
            Component::Normal(name) => path.push(name),
            Component::CurDir => (),
            _ => return None,
        }
    }
    Some(path.to_str().unwrap().to_owned())
}

/// What is wrong with a link of a page; `None`: it leads somewhere.
fn broken(pages: &BTreeMap<String, Page>, page: &str, link: &str) -> Option<String> {
    if link.starts_with("https://") || link.starts_with("http://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let meant = if path.is_empty() { Some(page.to_owned()) } else { meant(page, path) };
    let Some(target) = meant else { return Some("leads out of the project".to_owned()) };
    if !root().join(&target).exists() {
        return Some(format!("there is no {target}"));
    }
    let anchor = anchor?;
    let headings = &pages.get(&target)?.anchors;
    (!headings.iter().any(|known| known == anchor)).then(|| format!("{target} has no heading #{anchor}: {headings:?}"))
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut checked = 0;
    let mut wrong = Vec::new();
    for (name, page) in &pages {
        for (line, link) in &page.links {
            checked += 1;
            wrong.extend(broken(&pages, name, link).map(|why| format!("{name}:{line}: {link}: {why}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 150, "{checked} links");
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let page = Page::read("# One\n");
    let pages = BTreeMap::from([("docs/moves.md".to_owned(), page)]);
    for (link, is_right) in [
        ("moves.md#one", true),
        ("#one", true),
        ("../README.md", true),
        ("../docs/page.png", true),
        ("https://nodejs.org/", true),
        ("moves.md#two", false),
        ("#two", false),
        ("README", false),
        ("../../README.md", false),
    ] {
        assert_eq!(broken(&pages, "docs/moves.md", link).is_none(), is_right, "{link}");
    }
}

/// Messages, help and comments name pages by their path.
#[test]
fn every_page_that_the_code_names_exists() {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/');
    let mut named = BTreeSet::new();
    let mut folders = ["src", "config", "packaging", "workers"].map(|folder| root().join(folder)).to_vec();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap();
            for rest in text.split("docs/").skip(1) {
                let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
                if rest[name.len()..].starts_with(".md") {
                    named.insert(format!("docs/{name}.md"));
                }
            }
        }
    }
    assert!(named.len() > 5, "{named:?}");
    for page in named {
        assert!(root().join(&page).exists(), "the code names {page}, which is not there");
    }
}

/// The index for readers, and the list from which the site is built.
#[test]
fn every_page_of_the_docs_is_in_both_tables_of_contents() {
    let pages = pages();
    for contents in ["docs/README.md", "docs/SUMMARY.md"] {
        let listed: Vec<String> = pages[contents]
            .links
            .iter()
            .filter_map(|(_, link)| meant(contents, link.split('#').next().unwrap_or_default()))
            .collect();
        for page in pages.keys().filter(|page| page.starts_with("docs/") && page.matches('/').count() == 1) {
            if page != contents && page != "docs/SUMMARY.md" {
                assert!(listed.contains(page), "{contents} does not lead to {page}");
            }
        }
    }
}
