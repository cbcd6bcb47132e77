//! What can go wrong with a call, at which of all calls it does, and what comes of the caller.

use http::StatusCode;
use tower::BoxError;

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused: 409, 429, 500.
    Refused(StatusCode),
    /// It never arrives.
    Lost,
    /// It is carried out, and the answer is lost.
    AnswerLost,
    /// The operator ends before it.
    EndsBefore,
    /// The operator ends after it, and never hears the answer.
    EndsAfter,
}

impl Fault {
    pub(crate) const ALL: [Self; 7] = [
        Self::Refused(StatusCode::CONFLICT),
        Self::Refused(StatusCode::TOO_MANY_REQUESTS),
        Self::Refused(StatusCode::INTERNAL_SERVER_ERROR),
        Self::Lost,
        Self::AnswerLost,
        Self::EndsBefore,
        Self::EndsAfter,
    ];
}

/// Counts the calls, and lets one of them go wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Calls so far.
    pub(crate) calls: usize,
    /// What they were, as method and place, since somebody has emptied this.
    pub(crate) log: Vec<String>,
    /// At which call something goes wrong, counted from 0.
    pub(crate) at: Option<(usize, Fault)>,
    /// The operator has ended: none of its calls arrives.
    pub(crate) ended: bool,
}

impl Faults {
    /// Counts a call, and tells what goes wrong with it: an error where it is not carried out, else what happens to its answer. `refuse`
    /// makes an answer of a status.
    pub(crate) fn meet<T>(&mut self, call: String, refuse: impl FnOnce(StatusCode) -> T) -> Result<Option<Fault>, Result<T, BoxError>> {
        self.log.push(call);
        let number = self.calls;
        self.calls += 1;
        let fault = self.at.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
        match fault {
            Some(Fault::EndsBefore) => self.ended = true,
            Some(Fault::Refused(status)) => return Err(Ok(refuse(status))),
            Some(Fault::Lost) => return Err(Err("the call was lost".into())),
            _ => {}
        }
        if self.ended { Err(Err("the operator has ended".into())) } else { Ok(fault) }
    }

    /// What comes back of a call that was carried out.
    pub(crate) fn hear<T>(&mut self, fault: Option<Fault>, answer: T) -> Result<T, BoxError> {
        match fault {
            Some(Fault::EndsAfter) => {
                self.ended = true;
                Err("the operator has ended".into())
            }
            Some(Fault::AnswerLost) => Err("the answer was lost".into()),
            _ => Ok(answer),
        }
    }
}
