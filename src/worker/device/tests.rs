//! How a device's thread treats what it is given.

use image::RgbImage;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::{Input, OutputFormat, Safety, Scheduler};

/// Panics on the first run and draws on the next.
struct Clumsy {
    runs: u32,
}

impl Predictor for Clumsy {
    fn warm_up(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn predict(
        &mut self,
        _: &Input,
        _: Option<&RgbImage>,
        _: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Drawn, PredictError> {
        self.runs += 1;
        assert!(self.runs > 1, "clumsy on purpose");
        let images = vec![Some(RgbImage::new(8, 8))];
        Ok(Drawn { images, safety: Safety::Unavailable, notes: Vec::new() })
    }
}

fn input() -> Input {
    Input {
        prompt: String::new(),
        negative_prompt: None,
        width: 256,
        height: 256,
        num_outputs: 1,
        scheduler: Scheduler::KEuler,
        num_inference_steps: 4,
        guidance_scale: 0.0,
        seed: 0,
        disable_safety_checker: false,
        image: None,
        prompt_strength: 0.8,
        output_format: OutputFormat::Png,
        output_quality: 80,
        embed_metadata: true,
    }
}

impl DeviceThread {
    async fn run(&self, limit: Option<Duration>, stop: CancellationToken) -> Run {
        let seat = self.seats(1).pop().expect("a seat");
        seat.run(input(), None, limit, stop, mpsc::unbounded_channel().0).await
    }
}

#[tokio::test]
async fn a_panic_in_the_model_fails_one_prediction_and_not_the_next() {
    let device = DeviceThread::start("clumsy", Box::new(|| Ok(Box::new(Clumsy { runs: 0 })))).expect("a thread");
    let first = device.run(None, CancellationToken::new()).await;
    assert!(matches!(first.result, Err(PredictError::Failed(_))));
    let second = device.run(None, CancellationToken::new()).await;
    assert_eq!(second.result.expect("drawn").images.len(), 1);
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_says_why() {
    let device = DeviceThread::start("broken", Box::new(|| anyhow::bail!("no weights"))).expect("a thread");
    let mut phase = device.phase();
    let failed = phase.wait_for(|phase| matches!(phase, DevicePhase::Failed(_))).await.expect("still there").clone();
    assert_eq!(failed, DevicePhase::Failed("no weights".to_owned()));
}

/// Takes a millisecond for each of any number of steps.
struct Endless;

impl Predictor for Endless {
    fn warm_up(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn predict(
        &mut self,
        _: &Input,
        _: Option<&RgbImage>,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Drawn, PredictError> {
        let step = Step { done: 1, total: 1, finished_images: 0, elapsed: Duration::ZERO, preview: None };
        while on_step(step.clone()).is_continue() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(PredictError::Canceled)
    }
}

#[tokio::test]
async fn a_run_beyond_its_time_limit_is_stopped_and_fails() {
    let device = DeviceThread::start("endless", Box::new(|| Ok(Box::new(Endless)))).expect("a thread");
    let run = device.run(Some(Duration::from_millis(5)), CancellationToken::new()).await;
    let Err(PredictError::Failed(failure)) = run.result else { panic!("{:?}", run.result) };
    assert_eq!(failure.code, FailureCode::TimeLimit);
    assert!(run.device_time > Duration::from_millis(5));
}

#[tokio::test]
async fn a_run_that_is_stopped_while_it_waits_never_starts_and_takes_no_time() {
    let device = DeviceThread::start("stopped", Box::new(|| Ok(Box::new(Clumsy { runs: 0 })))).expect("a thread");
    let stop = CancellationToken::new();
    stop.cancel();
    let run = device.run(None, stop).await;
    assert!(matches!(run.result, Err(PredictError::Canceled)));
    assert_eq!(run.device_time, Duration::ZERO);
}

/// Takes some time for each of three steps of all that run side by side.
struct Together;

impl Predictor for Together {
    fn warm_up(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn predict(
        &mut self,
        _: &Input,
        _: Option<&RgbImage>,
        _: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Drawn, PredictError> {
        unreachable!("nothing runs alone here")
    }

    fn predict_batch(
        &mut self,
        requests: &[Request<'_>],
        on_step: &mut dyn FnMut(usize, Step) -> ControlFlow<()>,
    ) -> Vec<Result<Drawn, PredictError>> {
        let mut results: Vec<_> = requests
            .iter()
            .map(|_| Ok(Drawn { images: Vec::new(), safety: Safety::Unavailable, notes: Vec::new() }))
            .collect();
        for done in 1..=3 {
            std::thread::sleep(Duration::from_millis(2));
            for (place, result) in results.iter_mut().enumerate().filter(|(_, result)| result.is_ok()) {
                let step = Step { done, total: 3, finished_images: 0, elapsed: Duration::ZERO, preview: None };
                if on_step(place, step).is_break() {
                    *result = Err(PredictError::Canceled);
                }
            }
        }
        results
    }
}

#[tokio::test]
async fn what_runs_side_by_side_shares_the_time_to_the_microsecond_and_one_that_is_stopped_leaves_the_others() {
    let device = DeviceThread::start("together", Box::new(|| Ok(Box::new(Together)))).expect("a thread");
    let stop = CancellationToken::new();
    let (steps, mut first_step) = mpsc::unbounded_channel();
    let mut runs = Vec::new();
    for (place, seat) in device.seats(5).into_iter().enumerate() {
        match place {
            // Given up: nobody waits for it.
            4 => drop(seat),
            0 => {
                // Stops itself with its first step.
                let (token, steps) = (stop.clone(), steps.clone());
                runs.push(tokio::spawn(seat.run(input(), None, None, token, steps)));
            }
            _ => {
                let quiet = mpsc::unbounded_channel().0;
                runs.push(tokio::spawn(seat.run(input(), None, None, CancellationToken::new(), quiet)));
            }
        }
    }
    first_step.recv().await.expect("a step");
    stop.cancel();
    let mut ended = Vec::new();
    for run in runs {
        ended.push(run.await.expect("no panic"));
    }
    let left = ended.remove(0);
    assert!(matches!(left.result, Err(PredictError::Canceled)));
    assert!(ended.iter().all(|run| run.result.is_ok() && run.neighbors == 3));
    let whole = left.batch_time;
    assert!(ended.iter().all(|run| run.batch_time == whole && run.device_time > left.device_time));
    let billed: Duration = ended.iter().map(|run| run.device_time).sum::<Duration>() + left.device_time;
    assert_eq!(billed, whole, "nothing is lost or billed twice");
}
