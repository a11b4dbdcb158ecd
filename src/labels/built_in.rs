//! Label sets that are there without being stored.

use super::definition::Definition;

/// The classes of ImageNet as open_clip 3.3.0 names them (`zero_shot_metadata.py`, MIT licence; most names are those of CLIP's
/// notebook): 998 names, since two classes are called as another one is.
const IMAGENET_1K: &str = include_str!("built_in/imagenet-1k.txt");

/// Every set by its name.
const SETS: [(&str, &str); 1] = [("imagenet-1k", IMAGENET_1K)];

/// The name of a built-in set, if there is one of that name.
pub(super) fn known(name: &str) -> Option<&'static str> {
    SETS.iter().map(|&(known, _)| known).find(|known| *known == name)
}

/// A built-in set; its labels go into the model's own template.
pub(super) fn definition(name: &str) -> Option<Definition> {
    let (_, labels) = SETS.iter().find(|(known, _)| *known == name)?;
    Some(Definition::of(labels.lines().map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_sets_can_be_stored_as_they_are() {
        for (name, _) in SETS {
            assert_eq!(known(name), Some(name));
            let definition = definition(name).unwrap();
            definition.check().unwrap();
            assert!(definition.labels.0.iter().all(|label| label.name.trim() == label.name));
        }
        let imagenet = definition("imagenet-1k").unwrap().labels.0;
        assert_eq!((imagenet.len(), imagenet[0].name.as_str()), (998, "tench"));
        assert!(known("imagenet-2k").is_none() && definition("imagenet-2k").is_none());
    }
}
