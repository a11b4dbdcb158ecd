//! Patterns of names: `*` and `?` within a part of a path, `**` over parts.

use regex::RegexSet;

use crate::bulk::fault::Fault;

/// Patterns. One without `/` is compared with the last part of a name, another with the whole name.
pub(in crate::bulk) struct Globs {
    parts: RegexSet,
    names: RegexSet,
}

impl Globs {
    pub(super) fn new(patterns: &[String]) -> Result<Self, Fault> {
        // A folder may be written with its `/`.
        let patterns = patterns.iter().map(|pattern| pattern.trim_end_matches('/'));
        let (names, parts): (Vec<&str>, Vec<&str>) = patterns.partition(|text| text.contains('/'));
        let set = |patterns: Vec<&str>| {
            RegexSet::new(patterns.into_iter().map(regex_of))
                .map_err(|error| Fault::usage(format!("--exclude: {error}")))
        };
        Ok(Self { parts: set(parts)?, names: set(names)? })
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        let last = name.rsplit('/').next().unwrap_or(name);
        self.parts.is_match(last) || self.names.is_match(name)
    }
}

fn regex_of(pattern: &str) -> String {
    let mut regex = String::from("^");
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let taken = if let Some(after) = rest.strip_prefix("**/") {
            regex.push_str("(?:.*/)?");
            rest.len() - after.len()
        } else if rest.starts_with("**") {
            regex.push_str(".*");
            2
        } else {
            match c {
                '*' => regex.push_str("[^/]*"),
                '?' => regex.push_str("[^/]"),
                c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            }
            c.len_utf8()
        };
        rest = &rest[taken..];
    }
    regex.push('$');
    regex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_of_names_or_of_paths() {
        let matches = |pattern: &str, name: &str| Globs::new(&[pattern.to_owned()]).unwrap().matches(name);
        for (pattern, name) in [
            ("*.tmp", "a/b.tmp"),
            ("b?.png", "b1.png"),
            ("a/*.png", "a/x.png"),
            ("**/x.png", "x.png"),
            ("**/raw/**", "a/raw/b/c.png"),
            ("raw/", "a/raw"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.tmp", "a.tmp.png"), ("a/*.png", "a/b/x.png"), ("a.png", "axpng"), ("a/*", "b/a/x")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
