//! What was charged, in dollars: to the nano-dollar, which is beyond a float and beyond a counter of whole dollars.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::COST;

const PER_DOLLAR: u64 = 1_000_000_000;

/// Nano-dollars by key and model.
type Charged = BTreeMap<(String, String), u64>;

static CHARGED: Mutex<Charged> = Mutex::new(Charged::new());

fn charged() -> MutexGuard<'static, Charged> {
    // Nothing under the lock can leave it half changed.
    CHARGED.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn add(key: String, model: &str, nanodollars: u64) {
    *charged().entry((key, model.to_owned())).or_default() += nanodollars;
}

/// Appends the family in Prometheus' format.
pub(super) fn render(text: &mut String) {
    write(&charged(), text);
}

fn write(charged: &Charged, text: &mut String) {
    // Writing to a text cannot fail.
    let _ = writeln!(
        text,
        "# HELP {COST} Dollars that this process charged, by model and by key, by its number; keys beyond the first 200 \
         that spend are `other`. The ledger is the truth.\n# TYPE {COST} counter"
    );
    for ((key, model), nanodollars) in charged {
        let (dollars, fraction) = (nanodollars / PER_DOLLAR, nanodollars % PER_DOLLAR);
        let model = model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = writeln!(text, "{COST}{{key=\"{key}\",model=\"{model}\"}} {dollars}.{fraction:09}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_told_to_the_nano_dollar() {
        let of = |key: &str, nanodollars| ((key.to_owned(), "a \"model\"".to_owned()), nanodollars);
        let mut text = String::new();
        write(&Charged::from([of("7", 3_080_000), of("other", 12_000_000_001)]), &mut text);
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            series,
            [
                "fourstep_cost_usd_total{key=\"7\",model=\"a \\\"model\\\"\"} 0.003080000",
                "fourstep_cost_usd_total{key=\"other\",model=\"a \\\"model\\\"\"} 12.000000001",
            ]
        );
    }
}
