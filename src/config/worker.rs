//! The words of the `[worker]` section.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// How many workers a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum WorkerCount {
    /// One for each device.
    Auto,
    /// This many.
    Exactly(u32),
}

/// What runs predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum PredictorKind {
    /// The model.
    Sdxl,
    /// A stand-in that draws a simple picture in a set time.
    Mock,
}

/// Where tensors live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DeviceChoice {
    /// The first GPU this build can use, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

/// Number format of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DtypeChoice {
    /// `F16` on a GPU and on a CPU with matrix units, `F32` on another.
    Auto,
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// 16 bits with the exponent range of 32.
    Bf16,
}

/// What the linear layers of the UNet are quantized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Quantization {
    /// Nothing.
    None,
    /// Eight-bit integers.
    Int8,
}

/// A word that is none of an option's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {expected}")]
pub struct UnknownChoice {
    given: String,
    expected: &'static str,
}

impl FromStr for WorkerCount {
    type Err = UnknownChoice;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Self::Auto),
            number => number.parse().map(Self::Exactly).map_err(|_| unknown(word, "\"auto\" or a number of workers")),
        }
    }
}

impl FromStr for PredictorKind {
    type Err = UnknownChoice;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "sdxl" => Ok(Self::Sdxl),
            "mock" => Ok(Self::Mock),
            _ => Err(unknown(word, "\"sdxl\" or \"mock\"")),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = UnknownChoice;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => word
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| unknown(word, "\"auto\", \"cpu\" or \"cuda:0\"")),
        }
    }
}

impl FromStr for DtypeChoice {
    type Err = UnknownChoice;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            _ => Err(unknown(word, "\"auto\", \"f32\", \"f16\" or \"bf16\"")),
        }
    }
}

impl FromStr for Quantization {
    type Err = UnknownChoice;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "none" => Ok(Self::None),
            "int8" => Ok(Self::Int8),
            _ => Err(unknown(word, "\"none\" or \"int8\"")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

fn unknown(given: &str, expected: &'static str) -> UnknownChoice {
    UnknownChoice { given: given.to_owned(), expected }
}

/// Lets serde read each choice through its `FromStr`. A number is text to the configuration as well as to the shell.
macro_rules! read_as_text {
    ($($choice:ty),+) => {
        $(impl TryFrom<String> for $choice {
            type Error = UnknownChoice;

            fn try_from(word: String) -> Result<Self, Self::Error> {
                word.parse()
            }
        })+
    };
}

read_as_text!(WorkerCount, PredictorKind, DeviceChoice, DtypeChoice, Quantization);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_the_pipeline_names_them() {
        for (word, device) in
            [("auto", DeviceChoice::Auto), ("cpu", DeviceChoice::Cpu), ("cuda:1", DeviceChoice::Cuda(1))]
        {
            assert_eq!(word.parse(), Ok(device));
            assert_eq!(device.to_string(), word);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
    }

    #[test]
    fn a_word_that_is_no_choice_is_refused_with_the_choices() {
        let refusal = "cuda:one".parse::<DeviceChoice>().expect_err("not a device").to_string();
        assert_eq!(refusal, r#""cuda:one" is not "auto", "cpu" or "cuda:0""#);
        assert!("-1".parse::<WorkerCount>().is_err());
        assert!("fp16".parse::<DtypeChoice>().is_err());
        assert!("real".parse::<PredictorKind>().is_err());
    }
}
