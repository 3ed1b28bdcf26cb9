//! Work spread over threads, whose results come out in the order in which it went in.
//!
//! ```text
//!   produce ──items──▶ worker, worker, … ──results──┐
//!      └───────────── slots, in order ──────────────┴─▶ consume
//! ```
//!
//! * At most [`slots_of`] items are under way between `produce` and `consume`: memory is bounded by that.
//! * Every thread has ended when [`map`] returns. Should `consume` fail, `produce` learns of it at its next
//!   push; a `produce` that waits for something must be woken by whoever owns that.
//! * A panic in any part becomes a panic of the caller.
//! * With one worker no thread is made at all: each item is worked on and consumed as it is pushed.

use std::io;
use std::sync::{Mutex, PoisonError, mpsc};
use std::{panic, thread};

/// How many threads are worth using: each has a block of its own in memory, and four outrun any store.
const WORKERS_MAX: usize = 4;

/// The number of workers for this machine.
pub fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX)
}

/// How many items may lie between producer and consumer: one for each worker, and one that waits.
fn slots_of(workers: usize) -> usize {
    workers + 1
}

/// The consumer has failed: nothing more is needed.
#[derive(Debug)]
pub(super) struct Stopped;

/// Where a producer puts what it has.
pub(super) trait Feed<I, O> {
    /// An item to be worked on.
    fn push(&mut self, item: I) -> Result<(), Stopped>;
    /// A result that needs no work, in its place among the others.
    fn pass(&mut self, result: O) -> Result<(), Stopped>;
}

/// Runs all three parts to their end. The first error in the order of items is the one that comes back.
pub(super) fn map<I, O, E, W>(
    workers: usize,
    produce: impl FnOnce(&mut dyn Feed<I, O>) -> Result<(), E> + Send,
    worker: impl Fn() -> W + Sync,
    mut consume: impl FnMut(O) -> Result<(), E>,
) -> Result<(), E>
where
    I: Send,
    O: Send,
    E: Send + From<io::Error>,
    W: FnMut(I) -> O,
{
    if workers <= 1 {
        let mut inline = Inline { work: worker(), consume, failed: None };
        let produced = produce(&mut inline);
        return inline.failed.map_or(produced, Err);
    }
    let (jobs, queue) = mpsc::channel::<Job<I, O>>();
    let queue = Mutex::new(queue);
    let (slots, results) = mpsc::sync_channel(slots_of(workers));
    let (worker, queue) = (&worker, &queue);
    thread::scope(|scope| {
        // Owned here, so that it is gone when this closure ends, however it does: that stops the producer.
        let results = results;
        let mut queues = Queues { jobs, slots };
        for _ in 0..workers {
            thread::Builder::new().name("codec-worker".to_owned()).spawn_scoped(
                scope,
                move || {
                    let mut work = worker();
                    while let Some(Job { item, result }) = next(queue) {
                        // A consumer that has gone needs no result.
                        let _ = result.send(work(item));
                    }
                },
            )?;
        }
        let producer = thread::Builder::new()
            .name("codec-input".to_owned())
            .spawn_scoped(scope, move || produce(&mut queues))?;
        for slot in &results {
            // A worker that gives no result has panicked; the scope passes that on.
            let Ok(result) = slot.recv() else { break };
            if let Err(error) = consume(result) {
                drop(results);
                // What the producer says now is no more than that it was stopped.
                if let Err(panic) = producer.join() {
                    panic::resume_unwind(panic);
                }
                return Err(error);
            }
        }
        drop(results);
        producer.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

struct Job<I, O> {
    item: I,
    result: mpsc::SyncSender<O>,
}

fn next<T>(queue: &Mutex<mpsc::Receiver<T>>) -> Option<T> {
    // Nothing that holds the lock can panic.
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

struct Queues<I, O> {
    jobs: mpsc::Sender<Job<I, O>>,
    slots: mpsc::SyncSender<mpsc::Receiver<O>>,
}

impl<I, O> Feed<I, O> for Queues<I, O> {
    fn push(&mut self, item: I) -> Result<(), Stopped> {
        let (result, slot) = mpsc::sync_channel(1);
        // First the place, which waits while there is none: so the queue of jobs is bounded too.
        self.slots.send(slot).map_err(|_| Stopped)?;
        self.jobs.send(Job { item, result }).map_err(|_| Stopped)
    }

    fn pass(&mut self, result: O) -> Result<(), Stopped> {
        let (sender, slot) = mpsc::sync_channel(1);
        sender.send(result).map_err(|_| Stopped)?;
        self.slots.send(slot).map_err(|_| Stopped)
    }
}

struct Inline<W, C, E> {
    work: W,
    consume: C,
    failed: Option<E>,
}

impl<I, O, E, W, C> Feed<I, O> for Inline<W, C, E>
where
    W: FnMut(I) -> O,
    C: FnMut(O) -> Result<(), E>,
{
    fn push(&mut self, item: I) -> Result<(), Stopped> {
        let result = (self.work)(item);
        self.pass(result)
    }

    fn pass(&mut self, result: O) -> Result<(), Stopped> {
        (self.consume)(result).map_err(|error| {
            self.failed = Some(error);
            Stopped
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Failure {
        Producer,
        Consumer(u64),
        Thread,
    }

    impl From<io::Error> for Failure {
        fn from(_: io::Error) -> Self {
            Self::Thread
        }
    }

    /// Squares numbers up to `until`; a consumer that refuses `refused`.
    fn squares(workers: usize, until: u64, refused: u64) -> (Result<(), Failure>, Vec<u64>) {
        let mut out = Vec::new();
        let result = map(
            workers,
            |feed| {
                for n in 0..until {
                    let fed = if n % 3 == 0 { feed.pass(n * n) } else { feed.push(n) };
                    fed.map_err(|Stopped| Failure::Producer)?;
                }
                if until == 50 { Err(Failure::Producer) } else { Ok(()) }
            },
            || |n: u64| n * n,
            |n| {
                if n == refused {
                    return Err(Failure::Consumer(n));
                }
                out.push(n);
                Ok(())
            },
        );
        (result, out)
    }

    #[test]
    fn results_come_in_the_order_of_items_with_any_number_of_workers() {
        let expected: Vec<u64> = (0..1000).map(|n| n * n).collect();
        for workers in [0, 1, 2, 3, 8] {
            assert_eq!(squares(workers, 1000, u64::MAX), (Ok(()), expected.clone()));
        }
    }

    #[test]
    fn a_consumer_that_fails_stops_the_producer_and_its_error_counts() {
        for workers in [1, 2, 5] {
            let (result, out) = squares(workers, u64::MAX, 100);
            assert_eq!((result, out.len()), (Err(Failure::Consumer(100)), 10));
        }
    }

    #[test]
    fn a_producer_that_fails_does_so_after_all_that_it_gave() {
        for workers in [1, 2, 5] {
            let (result, out) = squares(workers, 50, u64::MAX);
            assert_eq!((result, out.len()), (Err(Failure::Producer), 50));
        }
    }

    #[test]
    fn a_panic_in_any_part_reaches_the_caller() {
        let run = |workers: usize, at: &'static str| {
            panic::catch_unwind(move || {
                let boom = |part: &str| assert!(part != at, "boom");
                map(
                    workers,
                    |feed| {
                        for n in 0..100_u32 {
                            if feed.push(n).is_err() {
                                break;
                            }
                        }
                        boom("producer");
                        Ok::<(), Failure>(())
                    },
                    || move |n| boom(if n == 7 { "worker" } else { "none" }),
                    |()| {
                        boom("consumer");
                        Ok(())
                    },
                )
            })
        };
        for workers in [1, 3] {
            for part in ["producer", "worker", "consumer"] {
                assert!(run(workers, part).is_err(), "{part} of {workers}");
            }
            assert!(matches!(run(workers, "nobody"), Ok(Ok(()))));
        }
    }
}
