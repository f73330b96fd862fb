//! Sizes and numbers as people write them.

use std::str::FromStr;

use burn::tensor::DType;
use janus_model::Precision;
use janus_model::ops::Products;
use janus_model::packed::Bits;

/// Number format of weights in a file or in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    F32,
    Bf16,
    F16,
    /// Matrices of the decoder in so many bits, the rest as in the file.
    Packed(Bits),
}

impl WeightType {
    pub const ALL: [Self; 5] =
        [Self::F32, Self::Bf16, Self::F16, Self::Packed(Bits::Eight), Self::Packed(Bits::Four)];

    /// What people type for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packed(bits) => bits.name(),
            plain => plain.dtype().map_or("f32", short_name),
        }
    }

    /// `torch`'s word for it, where it has one.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::Packed(bits) => bits.name(),
            plain => plain.dtype().map_or("float32", torch_name),
        }
    }

    /// Burn's name of it; none of what Burn does not know.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Self::F32 => Some(DType::F32),
            Self::Bf16 => Some(DType::BF16),
            Self::F16 => Some(DType::F16),
            Self::Packed(_) => None,
        }
    }

    /// Bits of packed weights.
    pub fn packed(self) -> Option<Bits> {
        match self {
            Self::Packed(bits) => Some(bits),
            _ => None,
        }
    }

    /// What factors of products are rounded to where somebody asks for this: exact, unless it is
    /// bf16 or less; then as PyTorch computes in bf16.
    pub fn products(self) -> Products {
        match self {
            Self::Bf16 | Self::Packed(_) => Products::Bf16,
            Self::F32 | Self::F16 => Products::F32,
        }
    }
}

impl FromStr for WeightType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "f32" | "float32" => Ok(Self::F32),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "f16" | "float16" => Ok(Self::F16),
            "int8" => Ok(Self::Packed(Bits::Eight)),
            "int4" => Ok(Self::Packed(Bits::Four)),
            _ => Err("choose f32, bf16, f16, int8 or int4".into()),
        }
    }
}

/// What people type for the format of a model's weights.
pub fn weights_name(precision: &Precision) -> &'static str {
    precision.packed.map_or_else(|| short_name(precision.weights), Bits::name)
}

/// What people type for a number format.
pub fn short_name(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bf16",
        DType::F16 => "f16",
        _ => "f32",
    }
}

/// `torch`'s word for a number format, as configurations spell it.
pub fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        _ => "float32",
    }
}

/// `1500`, `500MB`, `5GB`, `2GiB`; at least one byte.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let unit = text[digits.len()..].trim().to_ascii_lowercase();
    let factor: u64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(format!("unknown unit {unit:?}; use B, KB, MB, GB, KiB, MiB or GiB")),
    };
    let number: f64 = digits.parse().map_err(|_| "expected a number with a unit, such as 5GB")?;
    let bytes = number * factor as f64;
    if !(1.0..=1e18).contains(&bytes) {
        return Err("expected a size from 1 byte to 1e18 bytes".into());
    }
    Ok(bytes as u64)
}

/// `4.18 GB`, in powers of ten.
pub fn size(bytes: u64) -> String {
    let value = bytes as f64;
    for (unit, scale) in [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)] {
        if value >= scale {
            return format!("{:.2} {unit}", value / scale);
        }
    }
    format!("{bytes} B")
}

/// `2,089,297,547`.
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 tensor`, `2 tensors`.
pub fn plural(number: usize, word: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {word}{s}", count(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        assert_eq!(parse_size("5GB"), Ok(5_000_000_000));
        assert_eq!(parse_size("1.5 MiB"), Ok(1_572_864));
        assert_eq!(parse_size("17"), Ok(17));
        for bad in ["", "GB", "-1", "0", "5 parsecs", "1e30GB", "nanGB", "infMB", "5é"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(size(4_178_595_094), "4.18 GB");
        assert_eq!(size(999), "999 B");
        assert_eq!(count(2_089_297_547), "2,089,297,547");
        assert_eq!((count(0), count(999), count(1000)), ("0".into(), "999".into(), "1,000".into()));
    }
}
