//! Several programs at once, one operation at a time, in an order that follows from a seed.

use std::cell::Cell;
use std::path::PathBuf;

use store::fs::LockKind;

use crate::rng::Rng;

thread_local! {
    static ACTOR: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Which of the programs this thread is.
pub(crate) fn actor() -> Option<usize> {
    ACTOR.get()
}

/// Makes this thread one of the programs.
pub(crate) fn become_actor(number: Option<usize>) {
    ACTOR.set(number);
}

/// Where a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    /// On its way to its first operation.
    Away,
    /// About to do an operation.
    Ready,
    /// Waiting for a lock.
    Blocked(PathBuf, LockKind),
    /// At its end.
    Done,
}

/// Whose turn it is. Between two operations a program runs alone, so the same seed is the same run.
#[derive(Debug)]
pub(crate) struct Turns {
    actors: Vec<At>,
    running: Option<usize>,
    rng: Rng,
    /// How often, of so many turns, another program is chosen.
    restless: usize,
    /// The program that only runs when no other can, until this many turns are over.
    slow: (usize, usize),
    turns: usize,
}

impl Turns {
    pub(crate) fn new(actors: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let restless = [1, 2, 5, 20, 80][rng.below(5)];
        let slow = (rng.below(actors.max(1) * 2), rng.below(600));
        Self { actors: vec![At::Away; actors], running: None, rng, restless, slow, turns: 0 }
    }

    /// Gives the turn up before an operation, or for a lock that somebody holds.
    pub(crate) fn wait(
        &mut self,
        me: usize,
        lock: Option<(PathBuf, LockKind)>,
        free: impl Fn(&PathBuf, LockKind) -> bool,
    ) {
        self.arrive(me, lock.map_or(At::Ready, |(path, kind)| At::Blocked(path, kind)), free);
    }

    /// A program is at its end.
    pub(crate) fn done(&mut self, me: usize, free: impl Fn(&PathBuf, LockKind) -> bool) {
        self.arrive(me, At::Done, free);
    }

    pub(crate) fn is_mine(&self, me: usize) -> bool {
        self.running == Some(me)
    }

    fn arrive(&mut self, me: usize, at: At, free: impl Fn(&PathBuf, LockKind) -> bool) {
        self.actors[me] = at;
        if self.running == Some(me) {
            self.running = None;
        }
        if self.running.is_some() || self.actors.contains(&At::Away) {
            return;
        }
        let may = |at: &At| match at {
            At::Ready => true,
            At::Blocked(path, kind) => free(path, *kind),
            At::Away | At::Done => false,
        };
        let mut able: Vec<usize> = (0..self.actors.len()).filter(|actor| may(&self.actors[*actor])).collect();
        if able.is_empty() {
            let stuck: Vec<_> = self.actors.iter().filter(|at| **at != At::Done).collect();
            assert!(stuck.is_empty(), "all wait for each other: {stuck:?}");
            return;
        }
        self.turns += 1;
        if able.len() > 1 && self.turns < self.slow.1 {
            able.retain(|actor| *actor != self.slow.0);
        }
        let stays = able.contains(&me) && !self.rng.one_in(self.restless);
        self.running = Some(if stays { me } else { able[self.rng.below(able.len())] });
    }
}
