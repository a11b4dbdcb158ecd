//! What is to be done: the files of this part that no shard has yet, cut into shards.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::manifest::Record;
use super::rows::{ShardFormat, identities};
use super::store::{Part, Store};
use crate::bulk::fault::Fault;
use crate::bulk::files::hex;
use crate::bulk::inputs::FileEntry;

/// Digits of the digest of its input in the name of a shard.
const DIGITS: usize = 20;

/// A shard that is to be made.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) name: String,
    /// SHA-256 over names, sizes and times of its files.
    pub(super) input: String,
    /// The file whose rows it has, where it is one of many inputs.
    pub(super) source: Option<String>,
    pub(super) files: Vec<FileEntry>,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) shards: Vec<Shard>,
    /// Shards of this part that are done.
    pub(super) done: usize,
    /// Rows of them.
    pub(super) done_rows: usize,
    /// Shards that have to be made again, since a file of theirs has changed (or as the options ask).
    pub(super) outdated: Vec<Record>,
    /// Rows of files that are no longer there.
    pub(super) gone: usize,
}

/// How work is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) rows: usize,
    pub(super) format: ShardFormat,
    /// Shards with rows of files that are gone are made again without them.
    pub(super) prune: bool,
    /// Shards with rows that are errors are made again.
    pub(super) retry_bad: bool,
}

/// Compares what is there with what is done.
pub(super) fn plan(store: &Store, files: Vec<FileEntry>, cut: Cut) -> Result<Plan, Fault> {
    let part = store.part();
    let (loose, whole): (Vec<FileEntry>, Vec<FileEntry>) =
        files.into_iter().filter(|file| is_of(part, &file.name)).partition(|file| file.content.is_loose());
    let mut plan = Plan::default();
    let loose = rest_of_loose(store, loose, cut, &mut plan)?;
    for files in loose.chunks(cut.rows.max(1)) {
        plan.shards.push(Shard::new(part, None, files.to_vec()));
    }
    whole_files(store, whole, cut, &mut plan);
    let outdated: HashSet<&str> = plan.outdated.iter().map(|record| &*record.shard).collect();
    let done = store.own().filter(|record| !outdated.contains(&*record.shard));
    (plan.done, plan.done_rows) =
        done.fold((0, 0), |(shards, rows), record| (shards + 1, rows + record.rows));
    Ok(plan)
}

/// Loose files that no shard has, in the order of names.
fn rest_of_loose(
    store: &Store,
    loose: Vec<FileEntry>,
    cut: Cut,
    plan: &mut Plan,
) -> Result<Vec<FileEntry>, Fault> {
    let mut present: HashMap<u128, (usize, bool)> = HashMap::with_capacity(loose.len());
    for (i, file) in loose.iter().enumerate() {
        // A file that is named twice is one.
        present.entry(key(&file.name)).or_insert((i, false));
    }
    let records: Vec<&Record> = store.records().filter(|record| record.source.is_none()).collect();
    for record in records {
        let (mut rows, mut outdated) = (Vec::new(), cut.retry_bad && record.bad > 0);
        let mut gone = 0;
        identities(store.root(), &record.files, cut.format, |row| match present.get(&key(row.file())) {
            Some(&(i, _)) => {
                let file = &loose[i];
                // Sizes and times are those of the file when it was read.
                outdated |= (Some(file.mtime), file.size) != (row.mtime, row.size) && row.mtime.is_some();
                rows.push(key(row.file()));
            }
            // Others of another division are no business of this part.
            None => gone += usize::from(is_of(store.part(), row.file())),
        })?;
        outdated |= cut.prune && gone > 0;
        match outdated {
            true => plan.outdated.push(record.clone()),
            false => {
                plan.gone += gone;
                for row in rows {
                    if let Some((_, done)) = present.get_mut(&row) {
                        *done = true;
                    }
                }
            }
        }
    }
    let mut rest: Vec<usize> = present.into_values().filter(|&(_, done)| !done).map(|(i, _)| i).collect();
    rest.sort_by(|&a, &b| loose[a].name.cmp(&loose[b].name));
    let mut loose: Vec<Option<FileEntry>> = loose.into_iter().map(Some).collect();
    Ok(rest.into_iter().filter_map(|i| loose[i].take()).collect())
}

/// Files of many inputs: a shard each.
fn whole_files(store: &Store, mut whole: Vec<FileEntry>, cut: Cut, plan: &mut Plan) {
    whole.sort_by(|a, b| a.name.cmp(&b.name));
    whole.dedup_by(|a, b| a.name == b.name);
    let names: HashSet<&str> = whole.iter().map(|file| &*file.name).collect();
    let mut done: HashMap<&str, Vec<&Record>> = HashMap::new();
    for record in store.records() {
        let Some(source) = &record.source else { continue };
        if names.contains(&**source) {
            done.entry(source).or_default().push(record);
        } else if is_of(store.part(), source) {
            match cut.prune {
                true => plan.outdated.push(record.clone()),
                false => plan.gone += record.rows,
            }
        }
    }
    for file in &whole {
        let shard = Shard::new(store.part(), Some(file.name.clone()), vec![file.clone()]);
        let (same, other): (Vec<&Record>, Vec<&Record>) = done
            .remove(&*file.name)
            .unwrap_or_default()
            .into_iter()
            .partition(|record| record.input == shard.input && !(cut.retry_bad && record.bad > 0));
        plan.outdated.extend(other.into_iter().cloned());
        if same.is_empty() {
            plan.shards.push(shard);
        }
    }
}

impl Shard {
    fn new(part: Part, source: Option<String>, files: Vec<FileEntry>) -> Self {
        let mut hash = Sha256::new();
        for FileEntry { name, size, mtime, .. } in &files {
            // No name holds a NUL.
            hash.update(format!("{name}\0{size}\0{mtime}\n"));
        }
        let input = hex(hash.finalize());
        Self { name: format!("part-{part}-{}", &input[..DIGITS]), input, source, files }
    }
}

/// Whether a part of the work has a file of that name.
fn is_of(part: Part, name: &str) -> bool {
    key(name) % u128::from(part.of) == u128::from(part.index)
}

/// The same on every machine.
fn key(name: &str) -> u128 {
    let digest = Sha256::digest(name);
    digest[..16].iter().fold(0, |key, &byte| key << 8 | u128::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_of_one_part() {
        for of in [1, 2, 7] {
            for i in 0..200 {
                let parts = (0..of).filter(|&index| is_of(Part { index, of }, &format!("a/{i}.png"))).count();
                assert_eq!(parts, 1);
            }
        }
        let first = (0..1000).filter(|i| is_of(Part { index: 0, of: 4 }, &format!("{i}"))).count();
        assert!((200..300).contains(&first), "{first} of 1000");
    }
}
