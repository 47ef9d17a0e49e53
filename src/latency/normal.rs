//! The normal distribution, both ways: the two functions that the latency distributions are built on.
//!
//! Written here because a statistics library would bring linear algebra along for sixty lines.

#![expect(clippy::excessive_precision, reason = "the coefficients stand as published")]

/// The standard normal quantile: Wichura, "Algorithm AS 241: The percentage points of the normal distribution", Applied
/// Statistics 37 (1988), routine PPND16; relative error about 1e-16.
///
/// Outside of the open interval from 0 to 1 the nearest number inside counts, so that every draw has a finite value.
pub fn quantile(probability: f64) -> f64 {
    const SMALLEST: f64 = 1.0 / (1_u64 << 54) as f64;
    let p = probability.clamp(SMALLEST, 1.0 - f64::EPSILON / 2.0);
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * horner(&CENTRE_OVER, r) / horner(&CENTRE_UNDER, r);
    }
    let r = (-p.min(1.0 - p).ln()).sqrt();
    let distance = if r <= 5.0 {
        horner(&MIDDLE_OVER, r - 1.6) / horner(&MIDDLE_UNDER, r - 1.6)
    } else {
        horner(&TAIL_OVER, r - 5.0) / horner(&TAIL_UNDER, r - 5.0)
    };
    distance.copysign(q)
}

/// The probability below `x`: Marsaglia, "Evaluating the normal distribution", Journal of Statistical Software 11
/// (2004), the Taylor series around zero; absolute error below 1e-15.
pub fn probability_below(x: f64) -> f64 {
    // The series would take ever longer for digits that a double does not have.
    if x.abs() > 8.5 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut previous, mut term, mut odd) = (x, 0.0, x, 1.0);
    while sum != previous {
        previous = sum;
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    const HALF_LOG_OF_TWO_PI: f64 = 0.918_938_533_204_672_741_78;
    (0.5 + sum * (-0.5 * x * x - HALF_LOG_OF_TWO_PI).exp()).clamp(0.0, 1.0)
}

/// The polynomial with these coefficients, the constant first.
fn horner(coefficients: &[f64; 8], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

const CENTRE_OVER: [f64; 8] = [
    3.3871328727963666080e0,
    1.3314166789178437745e2,
    1.9715909503065514427e3,
    1.3731693765509461125e4,
    4.5921953931549871457e4,
    6.7265770927008700853e4,
    3.3430575583588128105e4,
    2.5090809287301226727e3,
];
const CENTRE_UNDER: [f64; 8] = [
    1.0,
    4.2313330701600911252e1,
    6.8718700749205790830e2,
    5.3941960214247511077e3,
    2.1213794301586595867e4,
    3.9307895800092710610e4,
    2.8729085735721942674e4,
    5.2264952788528545610e3,
];
const MIDDLE_OVER: [f64; 8] = [
    1.42343711074968357734e0,
    4.63033784615654529590e0,
    5.76949722146069140550e0,
    3.64784832476320460504e0,
    1.27045825245236838258e0,
    2.41780725177450611770e-1,
    2.27238449892691845833e-2,
    7.74545014278341407640e-4,
];
const MIDDLE_UNDER: [f64; 8] = [
    1.0,
    2.05319162663775882187e0,
    1.67638483018380384940e0,
    6.89767334985100004550e-1,
    1.48103976427480074590e-1,
    1.51986665636164571966e-2,
    5.47593808499534494600e-4,
    1.05075007164441684324e-9,
];
const TAIL_OVER: [f64; 8] = [
    6.65790464350110377720e0,
    5.46378491116411436990e0,
    1.78482653991729133580e0,
    2.96560571828504891230e-1,
    2.65321895265761230930e-2,
    1.24266094738807843860e-3,
    2.71155556874348757815e-5,
    2.01033439929228813265e-7,
];
const TAIL_UNDER: [f64; 8] = [
    1.0,
    5.99832206555887937690e-1,
    1.36929880922735805310e-1,
    1.48753612908506148525e-2,
    7.86869131145613259100e-4,
    1.84631831751005468180e-5,
    1.42151175831644588870e-7,
    2.04426310338993978564e-15,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_of_the_tables_come_out() {
        // R: qnorm(c(.5, .9, .975, .99, .999999, 1e-10), lower.tail = TRUE).
        let table = [
            (0.5, 0.0),
            (0.9, 1.281_551_565_544_600_4),
            (0.975, 1.959_963_984_540_054),
            (0.99, 2.326_347_874_040_841),
            (0.999_999, 4.753_424_308_822_899),
            (1e-10, -6.361_340_902_404_056),
        ];
        for (probability, expected) in table {
            let x = quantile(probability);
            assert!((x - expected).abs() < 1e-9, "{probability}: {x} instead of {expected}");
        }
    }

    #[test]
    fn the_two_functions_undo_each_other() {
        for step in 1..1000 {
            let p = f64::from(step) / 1000.0;
            assert!((probability_below(quantile(p)) - p).abs() < 1e-14, "{p}");
        }
        assert!((probability_below(-6.0) - 9.865_876_450_376_981e-10).abs() < 1e-15);
    }

    #[test]
    fn the_ends_are_finite() {
        assert!(quantile(0.0) < -8.0 && quantile(0.0).is_finite());
        assert!(quantile(1.0) > 8.0 && quantile(1.0).is_finite());
        assert_eq!((probability_below(-40.0), probability_below(40.0)), (0.0, 1.0));
    }
}
