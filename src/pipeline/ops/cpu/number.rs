//! The types that weights are kept in, and their numbers in f32.

use std::any::TypeId;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_slli_epi32, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_loadu_ps, _mm512_slli_epi32,
};

use half::{bf16, f16, slice::HalfFloatSliceExt};
use pulp::Simd;
#[cfg(target_arch = "x86_64")]
use pulp::x86::V4;

use super::lanes::{MOST_LANES, load};

/// Types a weight may be kept in.
pub(super) trait Number: Copy + Sync + 'static {
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "what fills up tiles"))]
    const ZERO: Self;

    /// Numbers in f32, as many as there is room for.
    fn widen(numbers: &[Self], wide: &mut [f32]);

    /// Sixteen numbers in f32.
    ///
    /// # Safety
    /// The processor has AVX-512's F, BW and VL.
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "a trait's way to have an implementation that needs these instructions")]
    unsafe fn widened(numbers: &[Self; MOST_LANES]) -> __m512;

    /// Eight numbers in f32.
    ///
    /// # Safety
    /// The processor has AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "as above")]
    unsafe fn eight_widened(numbers: &[Self; 8]) -> __m256;
}

impl Number for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn widen(numbers: &[Self], wide: &mut [f32]) {
        wide.copy_from_slice(numbers);
    }

    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the trait's functions are unsafe")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn widened(numbers: &[Self; MOST_LANES]) -> __m512 {
        // SAFETY: the array is sixteen times four bytes, the 64 that are read.
        unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
    }

    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the trait's functions are unsafe")]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn eight_widened(numbers: &[Self; 8]) -> __m256 {
        // SAFETY: the array is eight times four bytes, the 32 that are read.
        unsafe { _mm256_loadu_ps(numbers.as_ptr()) }
    }
}

impl Number for f16 {
    const ZERO: Self = Self::ZERO;

    #[inline(always)]
    fn widen(numbers: &[Self], wide: &mut [f32]) {
        numbers.convert_to_f32_slice(wide);
    }

    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the trait's functions are unsafe")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn widened(numbers: &[Self; MOST_LANES]) -> __m512 {
        // SAFETY: the array is sixteen times two bytes, the 32 that are read.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) })
    }

    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the trait's functions are unsafe")]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn eight_widened(numbers: &[Self; 8]) -> __m256 {
        // SAFETY: the array is eight times two bytes, the 16 that are read.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(numbers.as_ptr().cast()) })
    }
}

impl Number for bf16 {
    const ZERO: Self = Self::ZERO;

    #[inline(always)]
    fn widen(numbers: &[Self], wide: &mut [f32]) {
        numbers.convert_to_f32_slice(wide);
    }

    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the trait's functions are unsafe")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn widened(numbers: &[Self; MOST_LANES]) -> __m512 {
        // SAFETY: the array is sixteen times two bytes, the 32 that are read.
        let bits = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) });
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
    }

    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the trait's functions are unsafe")]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn eight_widened(numbers: &[Self; 8]) -> __m256 {
        // SAFETY: the array is eight times two bytes, the 16 that are read.
        let bits = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(numbers.as_ptr().cast()) });
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    }
}

/// Whether [`widened`] has a vector's numbers from memory to registers at once: from f32 always, from others only with
/// AVX-512.
#[inline(always)]
pub(super) fn widens_in_registers<S: Simd, T: Number>() -> bool {
    TypeId::of::<T>() == TypeId::of::<f32>() || is_avx512::<S>()
}

/// Whether vectors are AVX-512's. Sixteen lanes do not say so: some of pulp's types put such vectors together of
/// smaller ones.
#[inline(always)]
pub(super) fn is_avx512<S: Simd>() -> bool {
    #[cfg(target_arch = "x86_64")]
    return TypeId::of::<S>() == TypeId::of::<V4>();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// A vector of the first of these numbers, of a processor that has such vectors.
#[inline(always)]
pub(super) fn widened<S: Simd, T: Number>(_: S, numbers: &[T]) -> S::f32s {
    #[cfg(target_arch = "x86_64")]
    if is_avx512::<S>()
        && let Some(numbers) = numbers.first_chunk()
    {
        // SAFETY: a value of V4 is there only where the processor has AVX-512's F, BW and VL. Its vectors of f32 are
        // sixteen lanes of any bits, as `__m512` is.
        #[expect(unsafe_code)]
        return unsafe { std::mem::transmute_copy(&T::widened(numbers)) };
    }
    let mut wide = [0.0; MOST_LANES];
    T::widen(&numbers[..S::F32_LANES], &mut wide[..S::F32_LANES]);
    load::<S>(&wide, 0)
}
