//! Messages of `prom-client`, with which the primary of a cluster collects the metrics of its workers (`AggregatorRegistry`).
//! Here is what the master needs to ask and to recognise an answer; `api::app_metrics` reads the metrics in it.
use super::lines::{decode_number, push_number};

/// How each answer begins: prom-client writes these fields first.
pub const ANSWER: &[u8] = br#"{"type":"prom-client:getMetricsRes","requestId":"#;

/// Appends the question for all metrics.
pub fn ask(out: &mut Vec<u8>, request: u64) {
    out.extend_from_slice(br#"{"type":"prom-client:getMetricsReq","requestId":"#);
    push_number(out, request);
    out.extend_from_slice(b"}\n");
}

/// The number of the question that a line answers; `None`: it is no answer. The rest of the line is not looked at.
pub fn answered(line: &[u8]) -> Option<u64> {
    decode_number(line.strip_prefix(ANSWER)?).map(|(request, _)| request)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_what_prom_client_expects() {
        let mut out = Vec::new();
        ask(&mut out, 4_294_967_299);
        assert_eq!(out, b"{\"type\":\"prom-client:getMetricsReq\",\"requestId\":4294967299}\n");
    }

    #[test]
    fn answers_are_told_from_other_lines() {
        let answer = br#"{"type":"prom-client:getMetricsRes","requestId":7,"metrics":[[]]}"#;
        assert_eq!(answered(answer), Some(7));
        assert_eq!(answered(br#"{"type":"prom-client:getMetricsRes","requestId":7,"error":"x"}"#), Some(7));
        for other in [
            &br#"{"type":"prom-client:getMetricsReq","requestId":7}"#[..],
            br#"{"type":"prom-client:getMetricsRes","requestId":"7"}"#,
            br#"{"type":"prom-client:getMetricsRes","requestId":99999999999999999}"#,
            br#"{"requestId":7,"type":"prom-client:getMetricsRes"}"#,
            b"",
        ] {
            assert_eq!(answered(other), None);
        }
    }
}
