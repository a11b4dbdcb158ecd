//! What queued work costs, for the turns of clients.

use super::fair::Cost;
use super::lane::{Ready, Waiting};
use super::scoring::ScoreJob;

impl Cost for Waiting {
    fn cost(&self) -> usize {
        self.tokens
    }
}

impl Cost for Ready {
    fn cost(&self) -> usize {
        self.tokens()
    }
}

impl Cost for ScoreJob {
    fn cost(&self) -> usize {
        1
    }
}
