//! Which connection a full port closes for a new one: one without a request since the port was last full.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

/// Shared by a connection and the queue of its port.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests so far.
    pub(super) requests: AtomicU64,
    close: Notify,
}

impl Activity {
    /// Resolves when the connection is to be closed for a new one.
    pub(super) async fn closed_for_another(&self) {
        self.close.notified().await;
    }
}

/// The connections of a port, the one that was looked at first in front (the second-chance algorithm). A request costs no
/// more than a count, and bytes that are no whole request count for nothing: a client that sends a request slowly is
/// idle.
#[derive(Debug, Default)]
pub(super) struct IdleQueue(VecDeque<Entry>);

#[derive(Debug)]
struct Entry {
    activity: Weak<Activity>,
    /// The requests when the entry was looked at.
    requests: u64,
}

impl IdleQueue {
    /// Adds a connection. With `most` others there, one of them is closed; returns whether it was.
    pub(super) fn add(&mut self, activity: &Arc<Activity>, most: usize) -> bool {
        let Self(entries) = self;
        if entries.len() >= most {
            // Connections that ended by themselves.
            entries.retain(|entry| entry.activity.strong_count() > 0);
        }
        let full = entries.len() >= most;
        // Twice: all of them may have had a request.
        for _ in 0..entries.len() * 2 {
            if entries.len() < most {
                break;
            }
            let Some(Entry { activity, requests }) = entries.pop_front() else { break };
            let Some(connection) = activity.upgrade() else { continue };
            let now = connection.requests.load(Ordering::Relaxed);
            if now == requests {
                connection.close.notify_one();
            } else {
                entries.push_back(Entry { activity, requests: now });
            }
        }
        entries.push_back(Entry { activity: Arc::downgrade(activity), requests: 0 });
        full
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn connect(queue: &mut IdleQueue, most: usize) -> Arc<Activity> {
        let activity = Arc::default();
        queue.add(&activity, most);
        activity
    }

    fn closed(activity: &Activity) -> bool {
        let closed = activity.closed_for_another().now_or_never().is_some();
        if closed {
            // For the next look.
            activity.close.notify_one();
        }
        closed
    }

    #[test]
    fn the_one_that_is_idle_for_longest_goes_and_those_with_requests_stay() {
        let mut queue = IdleQueue::default();
        let request = |activity: &Activity| activity.requests.fetch_add(1, Ordering::Relaxed);
        let first: Vec<_> = (0..4).map(|_| connect(&mut queue, 4)).collect();
        assert!(!first.iter().any(|activity| closed(activity)));
        request(&first[0]);
        request(&first[2]);
        let fifth = connect(&mut queue, 4);
        assert_eq!([0, 1, 2, 3].map(|at| closed(&first[at])), [false, true, false, false]);
        let sixth = connect(&mut queue, 4);
        assert_eq!([0, 1, 2, 3].map(|at| closed(&first[at])), [false, true, false, true]);
        // A second look at the first one, which had no request since.
        let _seventh = connect(&mut queue, 4);
        assert!(closed(&first[0]) && !closed(&first[2]) && !closed(&fifth) && !closed(&sixth));
        // All had one: the oldest goes.
        let all: Vec<_> = (0..4).map(|_| connect(&mut queue, 4)).collect();
        all.iter().for_each(|activity| {
            request(activity);
        });
        let new = connect(&mut queue, 4);
        assert_eq!([0, 1, 2, 3].map(|at| closed(&all[at])), [true, false, false, false]);
        assert!(!closed(&new));
        assert_eq!(queue.0.len(), 4);
    }

    #[test]
    fn connections_that_ended_make_room_before_any_is_closed() {
        let mut queue = IdleQueue::default();
        let idle = connect(&mut queue, 4);
        for _ in 0..100 {
            drop(connect(&mut queue, 4));
        }
        assert!(!closed(&idle));
        assert!(queue.0.len() <= 4);
    }
}
