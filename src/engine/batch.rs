//! One batch on the model, and what to do when it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::EngineError;
use super::error::{Result, WorkError};

/// Once so many inputs have failed alone, one after the other and none succeeded, the model is
/// broken and not the inputs: the rest is not tried.
const MAX_SINGLE_FAILURES: usize = 8;

/// A tower: as many vectors as there are items, in their order.
pub(super) type Embed<'a, T> = dyn Fn(&[&T]) -> crate::Result<Vec<Vec<f32>>> + 'a;

/// What became of a batch.
pub(super) struct Outcome {
    /// One result an item, in their order.
    pub(super) results: Vec<Result<Vec<f32>>>,
    /// The smallest number of items at which the device ran out of memory.
    pub(super) out_of_memory_at: Option<usize>,
    /// How often the model panicked.
    pub(super) panics: usize,
    /// Vectors that no client may have: not finite, or of another width than the model's.
    pub(super) unusable: usize,
}

impl Outcome {
    /// Whether the batch speaks for the towers: something came out, and nothing that is no vector.
    pub(super) fn worked(&self) -> bool {
        self.unusable == 0 && self.results.iter().any(Result::is_ok)
    }
}

/// Embeds a batch into vectors of the `width` of each item.
///
/// - Out of memory: the batch is halved, down to one item.
/// - Another error: each item is tried alone, so that one which the model cannot take does not
///   fail the others.
/// - A panic: fails the items that were in that call.
/// - A vector of another width, or with a number that is not finite: fails its item.
pub(super) fn run<T>(items: &[&T], width: &dyn Fn(&T) -> usize, embed: &Embed<'_, T>) -> Outcome {
    let results = Vec::with_capacity(items.len());
    let mut outcome = Outcome { results, out_of_memory_at: None, panics: 0, unusable: 0 };
    run_part(items, embed, &mut outcome);
    for (result, item) in outcome.results.iter_mut().zip(items) {
        if let Ok(vector) = result
            && let Some(fault) = fault(vector, width(item))
        {
            outcome.unusable += 1;
            *result = Err(EngineError::Worker(fault).into());
        }
    }
    outcome
}

/// What is wrong with a vector.
fn fault(vector: &[f32], width: usize) -> Option<String> {
    if vector.len() != width {
        Some(format!("a vector of {} numbers instead of {width}", vector.len()))
    } else {
        let at = vector.iter().position(|value| !value.is_finite())?;
        Some(format!("the vector is not finite: {} at {at}", vector[at]))
    }
}

fn run_part<T>(items: &[&T], embed: &Embed<'_, T>, outcome: &mut Outcome) {
    match call(items, embed) {
        Call::Done(vectors) => outcome.results.extend(vectors.into_iter().map(Ok)),
        Call::Panicked(message) => {
            outcome.panics += 1;
            let failed = || Err(EngineError::Worker(message.clone()).into());
            outcome.results.extend(items.iter().map(|_| failed()));
        }
        Call::Failed(error) if is_out_of_memory(&error) => {
            outcome.out_of_memory_at =
                Some(outcome.out_of_memory_at.map_or(items.len(), |n| n.min(items.len())));
            if items.len() == 1 {
                outcome.results.push(Err(error));
            } else {
                let (first, second) = items.split_at(items.len() / 2);
                run_part(first, embed, outcome);
                run_part(second, embed, outcome);
            }
        }
        Call::Failed(error) if items.len() == 1 => outcome.results.push(Err(error)),
        Call::Failed(error) => {
            tracing::warn!(items = items.len(), %error, "a batch failed: trying its inputs one by one");
            run_singly(items, embed, outcome);
        }
    }
}

fn run_singly<T>(items: &[&T], embed: &Embed<'_, T>, outcome: &mut Outcome) {
    let (mut failures, mut succeeded, mut last) = (0, false, String::new());
    for item in items {
        if failures >= MAX_SINGLE_FAILURES && !succeeded {
            outcome.results.push(Err(EngineError::Worker(last.clone()).into()));
            continue;
        }
        match call(&[*item], embed) {
            Call::Done(vectors) => {
                succeeded = true;
                outcome.results.extend(vectors.into_iter().map(Ok));
            }
            Call::Failed(error) => {
                failures += 1;
                last = error.to_string();
                outcome.results.push(Err(error));
            }
            Call::Panicked(message) => {
                failures += 1;
                outcome.panics += 1;
                last.clone_from(&message);
                outcome.results.push(Err(EngineError::Worker(message).into()));
            }
        }
    }
}

enum Call {
    /// As many vectors as there were items.
    Done(Vec<Vec<f32>>),
    Failed(WorkError),
    Panicked(String),
}

fn call<T>(items: &[&T], embed: &Embed<'_, T>) -> Call {
    // Unwind safety: the model is shared between threads as it is, so that it holds up its own
    // invariants; what the closure captured is not looked at again after a panic.
    match catch_unwind(AssertUnwindSafe(|| embed(items))) {
        Ok(Ok(vectors)) if vectors.len() == items.len() => Call::Done(vectors),
        Ok(Ok(vectors)) => Call::Failed(
            EngineError::Worker(format!("{} vectors for {} inputs", vectors.len(), items.len())).into(),
        ),
        Ok(Err(error)) => Call::Failed(error.into()),
        Err(panic) => Call::Panicked(panic_message(panic.as_ref())),
    }
}

/// The text of a panic.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

/// Whether a device had no memory left. The driver's error is only text by the time it is here.
pub(super) fn is_out_of_memory(error: &WorkError) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    ["out of memory", "out_of_memory", "cublas_status_alloc_failed"].iter().any(|known| text.contains(known))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn compute(message: &str) -> crate::Error {
        crate::Error::Compute(candle_core::Error::Msg(message.to_owned()))
    }

    /// Runs a batch of numbers through `embed` and gives the outcome and the sizes of the calls.
    fn run_on(
        items: &[u32],
        embed: impl Fn(&[&u32]) -> crate::Result<Vec<Vec<f32>>>,
    ) -> (Outcome, Vec<usize>) {
        let calls = RefCell::new(Vec::new());
        let items: Vec<&u32> = items.iter().collect();
        let outcome = run(&items, &|_| 1, &|batch: &[&u32]| {
            calls.borrow_mut().push(batch.len());
            embed(batch)
        });
        (outcome, calls.into_inner())
    }

    fn vectors(batch: &[&u32]) -> crate::Result<Vec<Vec<f32>>> {
        Ok(batch.iter().map(|&&x| vec![x as f32]).collect())
    }

    fn values(outcome: &Outcome) -> Vec<Option<f32>> {
        outcome.results.iter().map(|result| result.as_ref().ok().map(|vector| vector[0])).collect()
    }

    #[test]
    fn out_of_memory_halves_until_it_fits_and_keeps_the_order() {
        let (outcome, calls) = run_on(&[0, 1, 2, 3, 4, 5, 6], |batch| match batch.len() {
            3.. => Err(compute("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")")),
            _ => vectors(batch),
        });
        assert_eq!(values(&outcome), (0..7).map(|x| Some(x as f32)).collect::<Vec<_>>());
        assert_eq!(calls, [7, 3, 1, 2, 4, 2, 2]);
        assert_eq!(outcome.out_of_memory_at, Some(3));
    }

    #[test]
    fn out_of_memory_for_one_item_is_its_error() {
        let (outcome, calls) = run_on(&[0, 1], |batch| match batch {
            [1] => vectors(batch),
            _ => Err(compute("out of memory")),
        });
        assert_eq!(values(&outcome), [None, Some(1.0)]);
        assert_eq!(calls, [2, 1, 1]);
        assert!(is_out_of_memory(outcome.results[0].as_ref().expect_err("it never fits")));
    }

    #[test]
    fn one_bad_input_fails_alone() {
        let (outcome, calls) = run_on(&[0, 1, 2, 3], |batch| match batch.contains(&&2) {
            true => Err(compute("bad shape")),
            false => vectors(batch),
        });
        assert_eq!(values(&outcome), [Some(0.0), Some(1.0), None, Some(3.0)]);
        assert_eq!(calls, [4, 1, 1, 1, 1]);
    }

    #[test]
    fn a_broken_model_is_not_asked_for_every_item() {
        let items: Vec<u32> = (0..100).collect();
        let (outcome, calls) = run_on(&items, |_| Err(compute("illegal address")));
        assert_eq!(outcome.results.len(), 100);
        assert!(outcome.results.iter().all(Result::is_err));
        assert_eq!(calls.len(), 1 + MAX_SINGLE_FAILURES);
    }

    #[test]
    fn a_panic_fails_its_batch_with_its_message() {
        let (outcome, calls) = run_on(&[0, 1], |_| panic!("index out of bounds"));
        assert_eq!((outcome.panics, calls.as_slice()), (1, &[2][..]));
        for result in outcome.results {
            let error = result.expect_err("it panicked").to_string();
            assert_eq!(error, "the model failed on this batch: index out of bounds");
        }
    }

    #[test]
    fn a_wrong_number_of_vectors_is_an_error_not_a_mixup() {
        let (outcome, _) = run_on(&[0, 1], |_| Ok(vec![vec![0.0]]));
        assert_eq!(values(&outcome), [Some(0.0), Some(0.0)]);
        let (outcome, _) = run_on(&[0, 1], |_| Ok(vec![vec![0.0]; 3]));
        assert_eq!(values(&outcome), [None, None]);
    }

    #[test]
    fn what_is_no_vector_fails_alone_and_speaks_against_the_towers() {
        let (outcome, calls) = run_on(&[0, 1, 2, 3], |batch| {
            let vector = |x: u32| match x {
                1 => vec![f32::NAN],
                2 => vec![0.0, f32::INFINITY],
                3 => vec![f32::NEG_INFINITY],
                x => vec![x as f32],
            };
            Ok(batch.iter().map(|&&x| vector(x)).collect())
        });
        assert_eq!(values(&outcome), [Some(0.0), None, None, None]);
        assert_eq!((calls.as_slice(), outcome.unusable), (&[4][..], 3));
        assert!(!outcome.worked());
        let errors: Vec<String> =
            outcome.results.into_iter().filter_map(|r| Some(r.err()?.to_string())).collect();
        assert!(errors[0].ends_with("the vector is not finite: NaN at 0"), "{errors:?}");
        assert!(errors[1].ends_with("a vector of 2 numbers instead of 1"), "{errors:?}");
    }
}
