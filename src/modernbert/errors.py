"""Every error that a user can cause, in one tree.

    ModernBertError
     |- ConfigError      a configuration that cannot be built, read or written
     |- FolderError      a model folder with a missing, cut or wrong file
     |   `- WeightsError the tensors do not fit the model, or are not numbers
     |- TokenizerError   a tokenizer file that cannot be read, or a text it cannot encode
     |- InputError       an argument that makes no sense: empty, too long, of the wrong kind
     |   `- TooLongError a text longer than the model, where nothing may be cut
     |- CorpusError      text, shards or a stream of them that cannot be read, or do not fit together
     |- TrainingError    a recipe that makes no sense, a run that cannot go on
     |- BackendError     no attention backend, device or dtype can serve the call
     `- TaskError        the model has no head for what was asked

Each message says what was wrong, what was found and what to do. All but FolderError are ValueErrors
too, so that code which knows nothing of this package can still catch them.
"""


class ModernBertError(Exception):
    """The root: catch this to catch everything the package raises on purpose."""


class ConfigError(ModernBertError, ValueError):
    """A configuration that cannot be built, read or written."""


class FolderError(ModernBertError, OSError):
    """A model folder with a missing, cut or wrong file."""


class WeightsError(FolderError):
    """The tensors in a file do not fit the model, or are not numbers."""


class TokenizerError(ModernBertError, ValueError):
    """A tokenizer file that cannot be read, or a text that it cannot encode."""


class InputError(ModernBertError, ValueError):
    """An argument that makes no sense: empty, too long, of the wrong kind."""


class TooLongError(InputError):
    """A text is longer than the model and the caller asked that nothing be cut."""


class CorpusError(ModernBertError, ValueError):
    """Text, shards or a stream of them that cannot be read, or do not fit together."""


class TrainingError(ModernBertError, ValueError):
    """A recipe that makes no sense, or a run that cannot go on."""


class BackendError(ModernBertError, ValueError):
    """No attention backend, device or dtype can serve the call."""


class TaskError(ModernBertError, ValueError):
    """The model has no head for what was asked."""
