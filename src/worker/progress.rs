//! The logs of a running prediction: notes and tqdm-like progress lines, which Replicate's clients draw as a bar.

use std::{fmt::Write, time::Duration};

use super::predictor::Step;

/// Text that only grows.
#[derive(Clone, Debug)]
pub(super) struct Logs {
    text: String,
    /// Steps told so far.
    done: u32,
}

impl Logs {
    /// Goes on where the row's logs end.
    pub(super) const fn continuing(text: String) -> Self {
        Self { text, done: 0 }
    }

    /// Adds a line.
    pub(super) fn note(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Adds the progress line of a step that is not there yet.
    pub(super) fn step(&mut self, step: &Step) {
        let &Step { done, total, elapsed, .. } = step;
        // A finished image is no step.
        if std::mem::replace(&mut self.done, done) == done {
            return;
        }
        let seconds = elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { f64::from(done) / seconds } else { 0.0 };
        let remaining = elapsed / done.max(1) * total.saturating_sub(done);
        let filled = (done * 10 / total.max(1)) as usize;
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.text,
            "{:>3}%|{}{}| {done}/{total} [{}<{}, {rate:.2}it/s]",
            done * 100 / total.max(1),
            "█".repeat(filled),
            " ".repeat(10 - filled),
            clock(elapsed),
            clock(remaining),
        );
    }

    /// All of it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

fn clock(duration: Duration) -> String {
    format!("{:02}:{:02}", duration.as_secs() / 60, duration.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_line_tqdm_could_have_written() {
        let mut logs = Logs::continuing("Using seed: 7\n".to_owned());
        logs.step(&Step { done: 1, total: 4, finished_images: 0, elapsed: Duration::from_millis(500), preview: None });
        logs.step(&Step { done: 4, total: 4, finished_images: 0, elapsed: Duration::from_secs(62), preview: None });
        let expected = "Using seed: 7\n 25%|██        | 1/4 [00:00<00:01, 2.00it/s]\n100%|██████████| 4/4 [01:02<00:00, 0.06it/s]\n";
        assert_eq!(logs.text(), expected);
    }
}
