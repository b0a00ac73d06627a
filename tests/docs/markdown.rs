//! As much of Markdown as these tests need: blocks of code, headings and what links lead to. Not a whole parser: a block that is
//! indented within a list is taken for text.

/// A block of code.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Block {
    /// Of its first line of code, from 1.
    pub(crate) line: usize,
    /// What stands behind the fence, as `js app.js`; empty for a block that is indented. Three comments count as blocks:
    /// `<!-- run: a command -->`, which a session runs and no reader sees, `<!-- wait: a command -->`, which it repeats until that
    /// succeeds, where a person takes a moment, and `<!-- not run: a program: why -->`.
    pub(crate) info: String,
    pub(crate) lines: Vec<String>,
}

impl Block {
    /// The first word behind the fence.
    pub(crate) fn language(&self) -> &str {
        self.info.split_whitespace().next().unwrap_or_default()
    }

    /// The name of the file that the block is, where the fence says one.
    pub(crate) fn file(&self) -> Option<&str> {
        self.info.split_whitespace().nth(1).filter(|name| name.contains('.'))
    }

    /// A session whose numbers matter.
    pub(crate) fn is_exact(&self) -> bool {
        self.info == "console exact"
    }

    pub(crate) fn text(&self) -> String {
        self.lines.iter().fold(String::new(), |all, line| all + line + "\n")
    }
}

/// A page, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) blocks: Vec<Block>,
    /// The anchors of its headings.
    pub(crate) anchors: Vec<String>,
    /// Each link with its line, from 1.
    pub(crate) links: Vec<(usize, String)>,
    /// The text without blocks of code, line by line, for what stands in it as `code`.
    pub(crate) prose: String,
}

impl Page {
    pub(crate) fn read(text: &str) -> Page {
        let mut page = Page::default();
        let mut fence: Option<Block> = None;
        let mut indented: Option<Block> = None;
        let mut after_blank = true;
        for (n, line) in text.lines().enumerate() {
            let mut prose = "";
            let hidden = ["wait", "run", "not run"].into_iter().find_map(|what| {
                let rest = line.strip_prefix("<!-- ")?.strip_prefix(what)?.strip_prefix(": ")?;
                Some((what, rest.strip_suffix(" -->")?))
            });
            if let Some(mut block) = fence.take() {
                if line.trim_end() == "```" {
                    page.blocks.push(block);
                } else {
                    block.lines.push(line.to_owned());
                    fence = Some(block);
                }
            } else if let Some(info) = line.strip_prefix("```") {
                page.blocks.extend(indented.take());
                fence = Some(Block { line: n + 2, info: info.trim().to_owned(), lines: Vec::new() });
            } else if let Some((what, command)) = hidden {
                page.blocks.extend(indented.take());
                page.blocks.push(Block { line: n + 1, info: what.to_owned(), lines: vec![command.to_owned()] });
            } else if let Some(code) = line.strip_prefix("    ").filter(|_| after_blank || indented.is_some()) {
                let begin = || Block { line: n + 1, info: String::new(), lines: Vec::new() };
                indented.get_or_insert_with(begin).lines.push(code.to_owned());
            } else if line.trim().is_empty() {
                // It may be within the block; one at the end is not.
                if let Some(block) = &mut indented {
                    block.lines.push(String::new());
                }
            } else {
                page.blocks.extend(indented.take());
                prose = line;
            }
            page.add_heading(prose);
            page.prose += prose;
            page.prose.push('\n');
            after_blank = line.trim().is_empty();
        }
        page.blocks.extend(indented);
        for block in &mut page.blocks {
            while block.info.is_empty() && block.lines.last().is_some_and(String::is_empty) {
                block.lines.pop();
            }
        }
        page.links = links(&page.prose);
        page
    }

    fn add_heading(&mut self, line: &str) {
        let text = line.trim_start_matches('#');
        if text.len() == line.len() || !text.starts_with(' ') {
            return;
        }
        let anchor = anchor(text.trim());
        let same = self.anchors.iter().filter(|known| **known == anchor).count();
        self.anchors.push(if same == 0 { anchor } else { format!("{anchor}-{same}") });
    }
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

/// The places of `code` in a text: where it begins and ends, without its backticks.
pub(crate) fn code_spans(text: &str) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find('`').map(|found| at + found) {
        let ticks = text[start..].len() - text[start..].trim_start_matches('`').len();
        let inside = start + ticks;
        // A paragraph ends a span that nobody has closed.
        let paragraph = text[inside..].find("\n\n").map_or(text.len(), |end| inside + end);
        let is_end = |(found, _): &(usize, &str)| {
            let (before, after) = (&text[inside..inside + found], &text[inside + found + ticks..]);
            !before.ends_with('`') && !after.starts_with('`')
        };
        match text[inside..paragraph].match_indices(&"`".repeat(ticks)).find(is_end) {
            Some((length, _)) => {
                spans.push((inside, inside + length));
                at = inside + length + ticks;
            }
            None => at = inside,
        }
    }
    spans
}

/// What links and pictures lead to. Those in `code` are none.
fn links(prose: &str) -> Vec<(usize, String)> {
    let mut text = prose.as_bytes().to_vec();
    for (start, end) in code_spans(prose) {
        text[start..end].fill(b'.');
    }
    let text = String::from_utf8(text).expect("code is replaced as a whole");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("](") {
        let line = text[..at].matches('\n').count() + 1;
        let target = text[at + 2..].split(')').next().unwrap_or_default();
        found.push((line, target.to_owned()));
    }
    found
}

#[test]
fn a_page_is_taken_apart() {
    let text = "# A `b` & c\n\nSee [`x`](y.md#z) and `[no](link)`:\n\n    one\n\n    two\n\n```js app.js\n3\n```\n# A b  c\n## d\n## d\n";
    let page = Page::read(text);
    let block = |line, info: &str, lines: &[&str]| Block {
        line,
        info: info.to_owned(),
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(page.blocks, [block(5, "", &["one", "", "two"]), block(10, "js app.js", &["3"])]);
    assert_eq!((page.blocks[1].language(), page.blocks[1].file()), ("js", Some("app.js")));
    assert_eq!(page.anchors, ["a-b--c", "a-b--c-1", "d", "d-1"]);
    assert_eq!(page.links, [(3, "y.md#z".to_owned())]);
}
