//! The page for browsers at the control address: three files that are part of the program, and the rules under which a
//! browser runs them. What it shows comes from the API.
use super::reply::{self, Reply};
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

/// Nothing but the page's own files runs, and nobody shows it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    Document,
    Style,
    Script,
}

impl File {
    /// The file at a path.
    pub(super) fn at(path: &str) -> Option<File> {
        match path {
            "/" => Some(File::Document),
            "/page.css" => Some(File::Style),
            "/page.js" => Some(File::Script),
            _ => None,
        }
    }

    pub(super) fn reply(self) -> Reply {
        let (kind, text) = match self {
            File::Document => ("text/html; charset=utf-8", include_str!("page.html")),
            File::Style => ("text/css; charset=utf-8", include_str!("page.css")),
            File::Script => ("text/javascript; charset=utf-8", include_str!("page.js")),
        };
        let mut reply = reply::text(kind, text);
        let headers = reply.headers_mut();
        for (name, value) in [
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            (CACHE_CONTROL, "no-cache"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    /// What the policy would refuse, and what would let text of an app become part of the page.
    #[test]
    fn the_page_has_nothing_inline_and_nothing_from_elsewhere() {
        let (html, css, script) = (include_str!("page.html"), include_str!("page.css"), include_str!("page.js"));
        for text in [html, css, script] {
            for bad in ["http://", "https://", "//cdn", "@import", "url("] {
                assert!(!text.contains(bad), "{bad}");
            }
        }
        for bad in ["style=", "onclick", "onload", "<script>", "<style"] {
            assert!(!html.contains(bad), "{bad}");
        }
        for bad in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", ".style."] {
            assert!(!script.contains(bad), "{bad}");
        }
    }

    /// Every element that the script names is there.
    #[test]
    fn the_script_finds_what_it_looks_for() {
        let (html, script) = (include_str!("page.html"), include_str!("page.js"));
        let wanted: Vec<&str> = script.split("at('").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
        assert!(wanted.len() > 10);
        for id in wanted {
            assert!(html.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }
}
