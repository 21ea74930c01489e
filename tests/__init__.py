from tests import typecheck as typecheck  # the jaxtyping hook looks it up as an attribute
