//! What was not embedded, and why.

use std::collections::BTreeMap;

/// Names that are given for each reason.
const EXAMPLES: usize = 3;

/// Files that were left out, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    reasons: BTreeMap<String, (usize, Vec<String>)>,
    failed: usize,
}

impl LeftOut {
    /// One more.
    pub fn add(&mut self, reason: &str, name: &str) {
        let (count, names) = self.reasons.entry(reason.to_owned()).or_default();
        *count += 1;
        if names.len() < EXAMPLES {
            names.push(name.to_owned());
        }
    }

    /// One more that was asked for and cannot be read.
    pub fn fail(&mut self, error: &std::io::Error, name: &str) {
        self.failed += 1;
        self.add(&format!("cannot be read: {error}"), name);
    }

    /// How many were asked for and cannot be read.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// A line for each reason: how many, why, and some of them.
    pub fn lines(&self) -> Vec<String> {
        let line = |(reason, (count, names)): (&String, &(usize, Vec<String>))| {
            let more = if *count > names.len() { ", …" } else { "" };
            format!("not indexed: {count} {reason} ({}{more})", names.join(", "))
        };
        self.reasons.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_a_line_with_some_names() {
        let mut left_out = LeftOut::default();
        for i in 0..5 {
            left_out.add("no pictures by their names", &format!("{i}.txt"));
        }
        left_out.add("excluded", "x.jpg");
        assert_eq!(
            left_out.lines(),
            [
                "not indexed: 1 excluded (x.jpg)",
                "not indexed: 5 no pictures by their names (0.txt, 1.txt, 2.txt, …)"
            ]
        );
    }
}
