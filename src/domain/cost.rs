//! Money: integer nano-dollars, and the one rule that turns device time into them.
//!
//! One dollar is 1 000 000 000 nano-dollars, so the hosted price of $0.001540 a second is exactly 1 540 of them a
//! millisecond. No amount ever passes through a float, neither in arithmetic nor on its way to JSON.

use std::{fmt, iter::Sum, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// An amount of US dollars in billionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(i64);

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    const PER_DOLLAR: i64 = 1_000_000_000;

    /// An amount given in nano-dollars.
    pub const fn new(nano_dollars: i64) -> Self {
        Self(nano_dollars)
    }

    /// The amount in nano-dollars.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        Self(amounts.map(|amount| amount.0).sum())
    }
}

/// Dollars as a plain decimal with no more digits than needed and at least two: `0.00308`, `1.50`.
impl fmt::Display for NanoUsd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        let per_dollar = Self::PER_DOLLAR.unsigned_abs();
        let fraction = format!("{:09}", magnitude % per_dollar);
        let digits = fraction.trim_end_matches('0').len().max(2);
        write!(formatter, "{sign}{}.{}", magnitude / per_dollar, &fraction[..digits])
    }
}

/// Dollars written as a decimal, for command lines: `5`, `0.25`, `0.000000001`.
impl FromStr for NanoUsd {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const MALFORMED: &str = "an amount in dollars looks like 5 or 0.25, with at most nine decimals";
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return Err(MALFORMED);
        }
        let whole: i64 = whole.parse().map_err(|_| MALFORMED)?;
        let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| MALFORMED)?;
        whole.checked_mul(Self::PER_DOLLAR).and_then(|dollars| dollars.checked_add(fraction)).map(Self).ok_or(MALFORMED)
    }
}

/// What a second of device time costs. Snapshotted into a prediction when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PricePerSecond(NanoUsd);

impl PricePerSecond {
    /// A price in nano-dollars a second.
    pub const fn new(nano_dollars: i64) -> Self {
        Self(NanoUsd::new(nano_dollars))
    }

    /// The price of one second.
    pub const fn per_second(self) -> NanoUsd {
        self.0
    }

    /// The cost of `device_time`, counted in whole microseconds and rounded half up to a nano-dollar.
    pub fn cost_of(self, device_time: Duration) -> NanoUsd {
        // i128 because a day of microseconds times a price already leaves i64 behind.
        let microseconds = device_time.as_micros() as i128;
        let nano_dollars = (microseconds * i128::from(self.0.get()) + 500_000) / 1_000_000;
        NanoUsd(i64::try_from(nano_dollars).unwrap_or(i64::MAX))
    }
}

/// Time that several shared, in a share for each of them: whole microseconds that differ by one at most, and together
/// are all the whole microseconds there are.
pub fn split(time: Duration, parts: usize) -> impl Iterator<Item = Duration> {
    let (microseconds, count) = (time.as_micros(), parts as u128);
    (0..count).map(move |part| {
        let share = microseconds / count + u128::from(part < microseconds % count);
        Duration::from_micros(u64::try_from(share).unwrap_or(u64::MAX))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_cost_is_the_nearest_whole_nano_dollar(price in 0..10_000_000_000i64, micros in 0..100_000_000_000u64) {
            let cost = i128::from(PricePerSecond::new(price).cost_of(Duration::from_micros(micros)).get());
            let twice_off = 2 * (cost * 1_000_000 - i128::from(price) * i128::from(micros));
            prop_assert!((-1_000_000 < twice_off) && (twice_off <= 1_000_000));
        }

        #[test]
        fn time_billed_in_parts_costs_at_most_half_a_nano_dollar_more_for_each(parts in proptest::collection::vec(0..100_000_000u64, 1..20)) {
            let price = PricePerSecond::new(1_540_000);
            let whole = price.cost_of(Duration::from_micros(parts.iter().sum())).get();
            let sum: NanoUsd = parts.iter().map(|part| price.cost_of(Duration::from_micros(*part))).sum();
            prop_assert!(2 * (sum.get() - whole).abs() <= parts.len() as i64 + 1);
        }

        #[test]
        fn shares_are_even_and_nothing_is_lost_between_them(micros in 0..100_000_000_000u64, parts in 1..20usize) {
            let time = Duration::from_micros(micros);
            let shares: Vec<Duration> = split(time, parts).collect();
            prop_assert_eq!(shares.len(), parts);
            prop_assert_eq!(shares.iter().sum::<Duration>(), time);
            let (most, least) = (shares.iter().max(), shares.iter().min());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| *most - *least <= Duration::from_micros(1)));
        }

        #[test]
        fn no_longer_run_costs_less(price in 0..10_000_000_000i64, micros in 0..100_000_000_000u64, more in 0..1_000_000u64) {
            let price = PricePerSecond::new(price);
            prop_assert!(price.cost_of(Duration::from_micros(micros)) <= price.cost_of(Duration::from_micros(micros + more)));
        }

        #[test]
        fn every_amount_reads_back_as_it_was_printed(nano in 0..=i64::MAX) {
            prop_assert_eq!(NanoUsd::new(nano).to_string().parse(), Ok(NanoUsd::new(nano)));
        }
    }

    /// The hosted page's price, $0.001540 a second.
    const HOSTED: PricePerSecond = PricePerSecond::new(1_540_000);

    #[test]
    fn two_seconds_cost_what_the_hosted_page_says() {
        assert_eq!(HOSTED.cost_of(Duration::from_secs(2)).to_string(), "0.00308");
    }

    #[test]
    fn one_dollar_buys_324_runs_of_two_seconds() {
        let run = HOSTED.cost_of(Duration::from_secs(2));
        assert_eq!(NanoUsd::PER_DOLLAR / run.get(), 324);
    }

    #[test]
    fn a_microsecond_rounds_half_up_to_a_whole_nano_dollar() {
        assert_eq!(HOSTED.cost_of(Duration::from_micros(1)), NanoUsd::new(2));
        assert_eq!(PricePerSecond::new(499_999).cost_of(Duration::from_micros(1)), NanoUsd::ZERO);
        assert_eq!(PricePerSecond::new(500_000).cost_of(Duration::from_micros(1)), NanoUsd::new(1));
    }

    #[test]
    fn amounts_print_as_plain_decimals_and_parse_back() {
        for (nano, text) in [(0, "0.00"), (1, "0.000000001"), (1_500_000_000, "1.50"), (-3_080_000, "-0.00308")] {
            assert_eq!(NanoUsd::new(nano).to_string(), text);
        }
        assert_eq!("1.50".parse(), Ok(NanoUsd::new(1_500_000_000)));
        assert_eq!("5".parse(), Ok(NanoUsd::new(5_000_000_000)));
        for malformed in ["", "-1", "1.", ".5", "1e3", "0.0000000001", "99999999999"] {
            assert!(malformed.parse::<NanoUsd>().is_err(), "{malformed} parsed");
        }
    }
}
