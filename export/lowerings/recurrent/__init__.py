"""The native forms of recurrent layers."""
