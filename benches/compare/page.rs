//! Puts what is measured into a page that is written by hand otherwise: only what stands between two markers changes.
//! Pure.

/// The page with `text` in the place that is called `name`.
///
/// # Errors
/// The marker that is missing, for people.
pub(crate) fn fill(page: &str, name: &str, text: &str) -> Result<String, String> {
    let (begin, end) = markers(name);
    let (before, rest) = page.split_once(&begin).ok_or_else(|| format!("no line {begin}"))?;
    let (_, after) = rest.split_once(&end).ok_or_else(|| format!("no line {end} after {begin}"))?;
    Ok(format!("{before}{begin}\n{}\n{end}{after}", text.trim_end()))
}

fn markers(name: &str) -> (String, String) {
    (format!("<!-- benches/run: {name} -->"), format!("<!-- benches/run: end of {name} -->"))
}
