//! Which kind of work a free worker takes: those that want the workers share their time.

use std::time::Duration;

use super::job::Lane;

/// The kinds of work of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Images,
    Texts,
    Scores,
}

impl From<Lane> for Kind {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Images => Self::Images,
            Lane::Texts => Self::Texts,
        }
    }
}

impl Kind {
    /// In the order in which they go first where they have had equal time: what is usually short first.
    pub(super) const ALL: [Self; 3] = [Self::Scores, Self::Texts, Self::Images];
}

/// Start-time fair queueing (Goyal et al. 1996) with one flow per kind.
///
/// The kind that has used the least time goes first, and a kind that comes back after a pause is treated as if it had
/// used as much as the one that was served last. So a text overtakes the pictures that wait, and goes on doing so until
/// texts have had as much time as pictures: then they alternate by time. Neither starves the other.
#[derive(Debug, Default)]
pub(super) struct Turns {
    used: [Duration; Kind::ALL.len()],
    /// Which kinds had work at the last choice.
    waiting: [bool; Kind::ALL.len()],
    /// What the kind that was chosen last had used then.
    clock: Duration,
}

impl Turns {
    /// The kind to take next of those that have work.
    pub(super) fn choose(&mut self, has_work: impl Fn(Kind) -> bool) -> Option<Kind> {
        let has_work = Kind::ALL.map(|kind| (kind as usize, has_work(kind)));
        for (kind, has_work) in has_work {
            if has_work && !std::mem::replace(&mut self.waiting[kind], has_work) {
                self.used[kind] = self.used[kind].max(self.clock);
            }
            self.waiting[kind] = has_work;
        }
        let ready = Kind::ALL.into_iter().filter(|&kind| self.waiting[kind as usize]);
        let chosen = ready.min_by_key(|&kind| self.used[kind as usize])?;
        self.clock = self.used[chosen as usize];
        Some(chosen)
    }

    /// Work of this kind kept a worker busy for so long.
    pub(super) fn used(&mut self, kind: Kind, time: Duration) {
        self.used[kind as usize] += time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: Duration = Duration::from_millis(250);
    const SHORT: Duration = Duration::from_millis(20);

    fn take(turns: &mut Turns, ready: &[Kind], time: Duration) -> Kind {
        let kind = turns.choose(|kind| ready.contains(&kind)).expect("work");
        turns.used(kind, time);
        kind
    }

    #[test]
    fn a_text_overtakes_pictures_that_have_kept_the_worker_busy() {
        let mut turns = Turns::default();
        for _ in 0..10 {
            assert_eq!(take(&mut turns, &[Kind::Images], BATCH), Kind::Images);
        }
        assert_eq!(take(&mut turns, &[Kind::Images, Kind::Texts], SHORT), Kind::Texts);
        // What texts did not use in all that time they do not get now.
        let texts = (0..100).take_while(|_| {
            turns.choose(|kind| kind != Kind::Scores) == Some(Kind::Texts) && {
                turns.used(Kind::Texts, SHORT);
                true
            }
        });
        assert!((1..=13).contains(&texts.count()));
    }

    #[test]
    fn kinds_that_always_have_work_get_equal_time() {
        let mut turns = Turns::default();
        let (mut images, mut texts) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..1000 {
            match turns.choose(|kind| kind != Kind::Scores).expect("work") {
                Kind::Images => {
                    images += BATCH;
                    turns.used(Kind::Images, BATCH);
                }
                _ => {
                    texts += SHORT;
                    turns.used(Kind::Texts, SHORT);
                }
            }
            let difference = images.max(texts) - images.min(texts);
            assert!(difference <= BATCH, "{images:?} of pictures, {texts:?} of texts");
        }
    }

    #[test]
    fn what_is_short_goes_first_among_equals_and_nothing_is_chosen_of_nothing() {
        let mut turns = Turns::default();
        assert_eq!(turns.choose(|_| false), None);
        assert_eq!(turns.choose(|_| true), Some(Kind::Scores));
        assert_eq!(turns.choose(|kind| kind != Kind::Scores), Some(Kind::Texts));
    }
}
