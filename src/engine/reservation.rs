//! Room that is kept for a large request which was refused: small ones, which always fit somewhere, must not keep it out
//! for ever.

use std::time::{Duration, Instant};

/// A client that was kept room and did not come for it is kept none for so long.
const COOL_DOWN: Duration = Duration::from_secs(60);
/// At most so many such clients are remembered.
const MAX_REMEMBERED: usize = 64;

/// One reservation at a time, for whoever was refused first.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    current: Option<Reservation>,
    /// Who did not come, and until when that is remembered.
    absent: Vec<(u64, Instant)>,
}

#[derive(Debug)]
struct Reservation {
    client: u64,
    items: usize,
    until: Instant,
}

impl Reservations {
    /// How many items are kept free of `client`: those of another's reservation.
    pub(super) fn kept_from(&mut self, client: u64, now: Instant) -> usize {
        self.expire(now);
        self.current.as_ref().filter(|kept| kept.client != client).map_or(0, |kept| kept.items)
    }

    /// Whether room is kept for a request of `client` with so many items.
    pub(super) fn is_for(&self, client: u64, items: usize) -> bool {
        self.current.as_ref().is_some_and(|kept| kept.client == client && items <= kept.items)
    }

    /// A large request was refused and told to come back after `retry_after`: it is kept room until it had the time to do
    /// so twice.
    pub(super) fn refused(&mut self, client: u64, items: usize, retry_after: Duration, now: Instant) {
        self.expire(now);
        let until = now + retry_after * 2 + Duration::from_secs(2);
        match &mut self.current {
            Some(kept) if kept.client == client => {
                kept.items = kept.items.max(items);
                kept.until = until;
            }
            Some(_) => {}
            None if self.absent.iter().any(|&(absent, _)| absent == client) => {}
            None => self.current = Some(Reservation { client, items, until }),
        }
    }

    /// A request was admitted; `true` if room was kept for it.
    pub(super) fn admitted(&mut self, client: u64, items: usize) -> bool {
        // A small one of the same client is not the one that waits.
        let came = self.current.as_ref().is_some_and(|kept| kept.client == client && items * 2 > kept.items);
        if came {
            self.current = None;
        }
        came
    }

    fn expire(&mut self, now: Instant) {
        self.absent.retain(|&(_, until)| until > now);
        if let Some(late) = self.current.take_if(|kept| kept.until <= now)
            && self.absent.len() < MAX_REMEMBERED
        {
            self.absent.push((late.client, now + COOL_DOWN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn room_is_kept_for_one_until_it_comes() {
        let (mut kept, now) = (Reservations::default(), Instant::now());
        kept.refused(1, 100, SECOND, now);
        kept.refused(2, 500, SECOND, now);
        assert_eq!((kept.kept_from(1, now), kept.kept_from(2, now)), (0, 100));
        assert!(kept.is_for(1, 100) && !kept.is_for(1, 101) && !kept.is_for(2, 1));
        assert!(!kept.admitted(1, 2) && !kept.admitted(2, 400), "others");
        assert!(kept.admitted(1, 100));
        assert_eq!(kept.kept_from(2, now), 0);
    }

    #[test]
    fn who_does_not_come_back_is_kept_nothing_for_a_while() {
        let (mut kept, now) = (Reservations::default(), Instant::now());
        kept.refused(1, 100, SECOND, now);
        // Coming back and being refused again prolongs it.
        kept.refused(1, 100, SECOND, now + 3 * SECOND);
        assert_eq!(kept.kept_from(2, now + 6 * SECOND), 100);
        let late = now + 7 * SECOND;
        assert_eq!(kept.kept_from(2, late), 0);
        kept.refused(1, 100, SECOND, late);
        assert_eq!(kept.kept_from(2, late), 0);
        kept.refused(2, 100, SECOND, late);
        assert_eq!(kept.kept_from(1, late), 100);
        assert!(kept.admitted(2, 100));
        kept.refused(1, 100, SECOND, late + 60 * SECOND);
        assert_eq!(kept.kept_from(2, late + 60 * SECOND), 100);
    }
}
